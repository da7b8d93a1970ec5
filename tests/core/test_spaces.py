"""Text spaces hold real text and survive flattening and shared memory."""

# ruff: noqa: D103

import copy
import pickle

import numpy as np
import pytest
from gymnasium.spaces import Box, Dict
from gymnasium.spaces.utils import flatdim, flatten, flatten_space, unflatten
from gymnasium.vector.utils import create_shared_memory, read_from_shared_memory, write_to_shared_memory
from hypothesis import given
from hypothesis import strategies as st

from videogym.spaces import UnicodeText

SPACE = UnicodeText(40)
texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=40)


@given(texts)
def test_any_unicode_is_a_member_and_survives_flattening(text):
    assert text in SPACE
    flat = flatten(SPACE, text)
    assert flat in flatten_space(SPACE) and flat.shape == (flatdim(SPACE),)
    assert unflatten(SPACE, flat) == text


@given(texts, texts)
def test_texts_survive_shared_memory(first, second):
    memory = create_shared_memory(SPACE, n=2)
    view = read_from_shared_memory(SPACE, memory, n=2)
    write_to_shared_memory(SPACE, 0, first, memory)
    write_to_shared_memory(SPACE, 1, second, memory)
    # The view was made before the texts were written, as Gymnasium does it.
    assert copy.deepcopy({"text": view}) == {"text": (first, second)}
    assert tuple(view) == (first, second)


@pytest.mark.parametrize("value", ["x" * 41, "\ud800", "a\udfffb", 3, None, b"bytes", ["a"]], ids=ascii)
def test_other_things_are_no_members(value):
    assert value not in SPACE


def test_the_bounds_are_members():
    assert "" in SPACE
    assert "x" * 40 in SPACE
    assert unflatten(SPACE, flatten(SPACE, "\x00" * 40)) == "\x00" * 40


def test_samples_are_members_and_follow_the_seed():
    first, second = UnicodeText(40, seed=3), UnicodeText(40, seed=3)
    samples = [first.sample() for _ in range(200)]
    assert all(sample in SPACE for sample in samples)
    assert samples == [second.sample() for _ in range(200)]
    assert any(not sample.isascii() for sample in samples)
    with pytest.raises(ValueError, match="mask"):
        SPACE.sample(mask=(1, None))


def test_equality_is_that_of_the_length_and_pickling_keeps_it():
    assert UnicodeText(40) == SPACE != UnicodeText(41)
    assert pickle.loads(pickle.dumps(SPACE)) == SPACE
    assert repr(SPACE) == "UnicodeText(40)"


def test_it_lives_in_dicts():
    space = Dict(text=UnicodeText(5), number=Box(0, 1, (2,)))
    value = {"text": "né🙂", "number": np.array([0.5, 1.0], np.float32)}
    assert value in space
    back = unflatten(space, flatten(space, value))
    assert back["text"] == "né🙂"
