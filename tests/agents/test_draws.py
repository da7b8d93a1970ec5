"""Tokens drawn by inverse CDF: by their probabilities, never a banned one, and the same from one seed."""

from __future__ import annotations

import math
from bisect import bisect_right
from fractions import Fraction
from itertools import accumulate

import torch
from hypothesis import given
from hypothesis import strategies as st

from agents.engines.draws import draw, uniforms

BELOW_ONE = math.nextafter(1.0, 0.0)
weights = st.lists(st.sampled_from([0.0, 1e-12, 1e-3, 0.5, 1.0, 7.0]), min_size=1, max_size=40).filter(any)


@given(weights, st.one_of(st.sampled_from([0.0, BELOW_ONE]), st.floats(0, BELOW_ONE)))
def test_what_is_impossible_is_never_drawn(weights: list[float], uniform: float) -> None:
    """At both ends of a number's range too, and where impossible tokens come first and last."""
    log_p = torch.tensor([weights]).log().log_softmax(-1)
    (token,) = draw(log_p, torch.tensor([uniform], dtype=torch.float64)).tolist()
    assert weights[token] > 0


@given(st.lists(st.integers(0, 9), min_size=1, max_size=40).filter(any), st.floats(0, BELOW_ONE))
def test_the_token_is_the_first_whose_sum_exceeds_the_number(weights: list[int], uniform: float) -> None:
    """By exact fractions, apart from numbers so close to a sum that single precision decides."""
    sums = [Fraction(one, sum(weights)) for one in accumulate(weights)]
    number = Fraction(uniform)
    if min(abs(number - one) for one in sums) < 1e-6:
        return
    log_p = torch.tensor([weights], dtype=torch.float32).log().log_softmax(-1)
    assert draw(log_p, torch.tensor([uniform], dtype=torch.float64)).tolist() == [
        bisect_right(sums, number)
    ]


def test_a_million_draws_follow_the_probabilities() -> None:
    """Chi-square over 50 tokens, of which one is banned: within 4 sigma of its mean."""
    torch.manual_seed(0)
    logits = torch.randn(50) * 2
    logits[7] = -1e9
    log_p = logits.log_softmax(-1)
    counts = torch.zeros(50)
    for _ in range(10):
        drawn = draw(log_p.expand(100_000, -1), uniforms(100_000, 1)[:, 0])
        counts += torch.bincount(drawn, minlength=50)
    assert counts[7] == 0
    expected = 1e6 * log_p.exp()
    others = torch.arange(50) != 7
    chi_square = float(((counts - expected) ** 2 / expected)[others].sum())
    degrees = 48
    assert abs(chi_square - degrees) < 4 * (2 * degrees) ** 0.5


def test_the_last_of_a_large_vocabulary_can_be_drawn() -> None:
    """150,000 equal tokens: in single precision sums stand still for some of them, and they are lost."""
    size = 150_000
    log_p = torch.full((1, size), -math.log(size))
    for token in (0, 1, 74_999, 149_998, 149_999):
        middle = torch.tensor([(token + 0.5) / size], dtype=torch.float64)
        assert draw(log_p, middle).tolist() == [token]


def test_a_row_draws_the_same_whoever_is_beside_it() -> None:
    """Numbers of a row follow from seed, place and step."""
    torch.manual_seed(3)
    few = uniforms(2, 5)
    torch.manual_seed(3)
    assert torch.equal(uniforms(9, 5)[:2], few)
    assert few.dtype == torch.float64 and bool(((few >= 0) & (few < 1)).all())
