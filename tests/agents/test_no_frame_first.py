"""A language model plays an episode that begins without a frame and asks for frames at a scale."""

# ruff: noqa: D103

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from small_chat import FAMILIES, assert_agrees, build, load, make_actor, make_env, play

from agents.vlm.scoring import Scorer
from videogym import get_recipe

EVA = get_recipe("EVA/code")
RECIPE = replace(EVA, name="EVA, small", rules=replace(EVA.rules, max_pixels=56 * 56, max_turns=3))
LOOK = (
    '<tool_call>{"tool": "frame_select", "arguments": '
    '{"start_time": 1, "end_time": 9, "nframes": 3, "resize": 0.1}}</tool_call>'
)


@pytest.mark.parametrize("family", FAMILIES)
def test_an_episode_without_first_frames_is_sampled_and_scored_alike(family: str, tmp_path: Path) -> None:
    model = load(build(tmp_path, family))
    records = play(
        make_env(model, recipe=RECIPE),
        make_actor(model),
        lambda turn, row: LOOK if turn == row % 2 else None,
    )
    assert all(not record.turns[0].visuals for record in records)
    shown = [visual for record in records[::2] for visual in record.turns[1].visuals]
    assert len(shown) == 3 * len(records[::2])
    side = model.chat_form(False).factor  # 640 x 360 at a tenth: 64 x 36, in whole squares
    assert {visual.size for visual in shown} == {(round(64 / side) * side, side)}
    with torch.no_grad():
        assert_agrees(Scorer(model, 0.8)(records), records, at_least=6)
