"""Static keys and values: attention is that over a row's own tokens, and none of anybody else's."""

# ruff: noqa: D103

from __future__ import annotations

import itertools

import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from rounding import assert_close
from torch import Tensor

from agents.models.static_cache import StaticCache

HEADS, GROUP, WIDTH, SCALING, STEPS = 2, 3, 4, 0.4, 3
CPU = torch.device("cpu")
Tokens = tuple[Tensor, Tensor]  # keys and values, (heads, L, D) each


def tokens(count: int) -> Tokens:
    return torch.randn(HEADS, count, WIDTH), torch.randn(HEADS, count, WIDTH)


def joined(*parts: Tokens) -> Tokens:
    return torch.cat([keys for keys, _ in parts], 1), torch.cat([values for _, values in parts], 1)


def plain_attention(queries: Tensor, seen: Tokens) -> Tensor:
    """(heads * group * D,) of the queries (heads * group, D) of one token, head by head."""
    out = []
    for head in range(HEADS * GROUP):
        keys, values = (part[head // GROUP] for part in seen)
        out.append((keys @ queries[head] * SCALING).softmax(0) @ values)
    return torch.cat(out)


rows = st.lists(st.tuples(st.integers(0, 3), st.integers(0, 4), st.integers(1, 5)), min_size=1, max_size=9)


@settings(deadline=None)
@given(rows, st.lists(st.integers(1, 6), min_size=4, max_size=4), st.data())
def test_every_row_attends_to_its_prompt_and_to_what_is_its_own(
    rows: list[tuple[int, int, int]], lengths: list[int], data: st.DataObject
) -> None:
    """Prompts of 1 to 6 tokens with any number of rows each, read and written, while rows leave."""
    torch.manual_seed(0)
    used = sorted({prompt for prompt, _, _ in rows})
    of_row = [used.index(prompt) for prompt, _, _ in rows]
    prompts = [tokens(lengths[prompt]) for prompt in used]
    known, new = ([tokens(row[which]) for row in rows] for which in (1, 2))
    cache = StaticCache(
        [keys.shape[1] for keys, _ in prompts],
        of_row,
        *([part[0].shape[1] for part in some] for some in (known, new)),
        room=2 * STEPS,
        device=CPU,
    )
    for number, prompt in enumerate(prompts):
        cache.put_prompt(number, [prompt])
    for row, part in enumerate(known):
        cache.put_row(row, [part])
    longest = max(keys.shape[1] for keys, _ in new)
    padded = [torch.full((2, HEADS, longest, WIDTH), torch.nan) for _ in rows]  # nothing sees what pads
    for row, pair in zip(padded, new, strict=True):
        for which in (0, 1):
            row[which, :, longest - pair[0].shape[1] :] = pair[which]
    stacked = torch.stack(padded)
    reading = cache.reading(range(len(rows)), longest)
    keys, values = reading.update(stacked[:, 0], stacked[:, 1], 0)
    own = [joined(prompts[p], k, n) for p, k, n in zip(of_row, known, new, strict=True)]
    for row, expected in enumerate(own):
        mask = reading.mask[row]
        assert torch.equal(keys[row][:, mask], expected[0])
        assert torch.equal(values[row][:, mask], expected[1])
    columns, left = cache.filled, list(range(len(rows)))
    for block in range(2):
        cache.open_block(STEPS, HEADS * GROUP)
        for _ in range(STEPS):
            cache.open_column()
            queries = torch.randn(len(left), HEADS * GROUP, WIDTH)
            written = [tokens(1) for _ in left]
            keys, values = (torch.stack([one[which][:, 0] for one in written]) for which in (0, 1))
            found = cache.attend(0, torch.cat([queries, keys], 1), values, SCALING)
            cache.close_column()
            for place, row in enumerate(left):
                own[row] = joined(own[row], written[place])
                assert_close(found[place], plain_attention(queries[place], own[row]))
        for place, row in enumerate(left):
            ((keys, values),) = cache.row(place, columns, (block + 1) * STEPS)
            start = prompts[of_row[row]][0].shape[1]
            assert torch.equal(keys, own[row][0][:, start:])
            assert torch.equal(values, own[row][1][:, start:])
        keep = data.draw(st.lists(st.sampled_from(range(len(left))), min_size=1, unique=True).map(sorted))
        cache.drop(keep)
        left = [left[place] for place in keep]


def test_a_prompt_is_held_once_for_all_its_rows() -> None:
    """Of a prompt of 100 tokens with 8 rows there are 100 keys a head, not 800."""
    cache = StaticCache([100, 7], [0] * 8 + [1] * 2, [0] * 10, [0] * 10, 5, CPU)
    cache.put_prompt(0, [tokens(100)])
    cache.put_prompt(1, [tokens(7)])
    (layer,) = cache._layers
    assert layer.prompt_keys.numel() == 2 * HEADS * WIDTH * 100
    assert layer.own_keys.numel() == 2 * 8 * HEADS * WIDTH * 5
    for number, length in enumerate((100, 7)):
        assert cache.prompt(number)[0][0].shape == (HEADS, length, WIDTH)


@given(st.lists(st.integers(1, 40), min_size=1, max_size=20))
def test_idle_slots_are_no_more_than_rows(counts: list[int]) -> None:
    """One prompt with 40 rows beside nineteen with one would have 800 slots for 59."""
    of_row = [number for number, count in enumerate(counts) for _ in range(count)]
    cache = StaticCache([2] * len(counts), of_row, [0] * len(of_row), [0] * len(of_row), 1, CPU)
    assert len(of_row) <= cache.own_mask[..., 0].numel() <= 2 * len(of_row)
    if len(set(counts)) == 1:
        assert len(cache.prompt_mask) == len(counts), "equal groups need no copy of a prompt"


def test_a_prompt_that_is_held_several_times_is_read_once() -> None:
    """Read by a pass, all its places hold what the pass found."""
    cache = StaticCache([2] * 4, [0] * 9 + [1, 2, 3], [0] * 12, [0] * 12, 1, CPU)
    assert len(cache.prompt_mask) > 4
    keys, values = tokens(2)
    others = torch.zeros(3, HEADS, 2, WIDTH)
    reading = cache.reading_prompts(range(4), 2)
    reading.update(torch.cat([keys[None], others]), torch.cat([values[None], others]), 0)
    (layer,) = cache._layers
    for place in cache._held[0]:
        assert torch.equal(layer.prompt_keys[place].mT, keys)
        assert torch.equal(layer.prompt_values[place], values)


def test_a_step_copies_nothing_that_is_there() -> None:
    """The memory of keys and values is the same from the first step of a batch to the last."""
    cache = StaticCache([5], [0, 0], [0, 0], [0, 0], 4, CPU)
    cache.put_prompt(0, [tokens(5)])
    places = [part.data_ptr() for part in (cache._layers[0].own_keys, cache._layers[0].own_values)]
    for _ in range(2):
        cache.open_block(2, HEADS)
        for _ in range(2):
            cache.open_column()
            cache.attend(0, torch.randn(2, 2 * HEADS, WIDTH), torch.randn(2, HEADS, WIDTH), SCALING)
            cache.close_column()
    assert places == [part.data_ptr() for part in (cache._layers[0].own_keys, cache._layers[0].own_values)]
    assert all(bool(column.any()) for column in itertools.chain(*cache._layers[0].own_keys[0].mT.unbind(1)))
