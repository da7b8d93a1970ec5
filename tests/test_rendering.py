"""Pictures have one size whatever the state, and show the truth on request only."""

# ruff: noqa: D103

from dataclasses import replace

import numpy as np
import pytest

from videogym import Answer, Crop, Segment, Select, Task, VideoQAEnv
from videogym.rendering import HEIGHT, WIDTH, render_ansi, render_rgb
from videogym.video import UnreadableVideo

ADDRESS = "synthetic:brief_event?level=0&duration_s=600&seed=1"
TASK = Task("task", ADDRESS, "Which?", "choice", ("red", "blue"), "B", (Segment(300, 330),))
GREEN = (46, 158, 91)  # of the evidence


def played(*actions, recipe="DEFAULT", **changes):
    env = VideoQAEnv([replace(TASK, **changes)], recipe)
    env.reset(seed=0)
    for action in actions:
        env.step(action)
    return env


STATES = {
    "skim": lambda: played(),
    "looks": lambda: played(Crop(100, 200), Crop(300, 330, (0.2, 0.2, 0.4, 0.9)), Crop(9, 3), Answer("B")),
    "pool": lambda: played(Select(100, 130), recipe="VIDEO_MTR/paper"),
    "long skim": lambda: played(Crop(100, 130), recipe="LONGVT/code"),
    "many turns": lambda: played(*[Crop(9, 3)] * 5),
    "long text": lambda: played(question="Why? " * 1500, options=("é中🙂\x1b[2J" * 50, "b" * 3000)),
    "two frames": lambda: played(Crop(599.8, 600)),
    "no evidence": lambda: played(evidence=None),
}


@pytest.mark.parametrize("name", STATES)
def test_every_state_is_a_picture_of_the_same_size(name):
    env = STATES[name]()
    picture = render_rgb(env.state, env.store, evidence=True)
    assert (picture.shape, picture.dtype) == ((HEIGHT, WIDTH, 3), np.uint8)
    assert len(np.unique(picture)) > 10


def test_the_evidence_is_drawn_on_request_and_where_it_is():
    env = played()
    hidden, shown = (render_rgb(env.state, env.store, evidence=flag) for flag in (False, True))
    assert not (hidden == GREEN).all(axis=-1).any()
    columns = np.flatnonzero((shown == GREEN).all(axis=-1).any(axis=0))
    # 300 to 330 of 600 s, on 928 pixels from 16 on.
    assert columns.min() == pytest.approx(16 + 928 * 0.5, abs=1)
    assert columns.max() == pytest.approx(16 + 928 * 0.55, abs=1)


def test_frames_that_cannot_be_decoded_are_said_to_be_missing(monkeypatch):
    env = played()
    whole = render_rgb(env.state, env.store)

    def damaged(*arguments, **options):
        raise UnreadableVideo("damaged")

    monkeypatch.setattr(env.store, "frames", damaged)
    assert render_rgb(env.state, env.store).shape == whole.shape


def test_the_environment_renders_as_it_was_told():
    for mode, kind in (("rgb_array", np.ndarray), ("ansi", str), (None, type(None))):
        env = VideoQAEnv([TASK], render_mode=mode)
        env.reset(seed=0)
        assert isinstance(env.render(), kind)


def test_the_text_form_by_hand():
    env = played(Crop(300, 330), Crop(9, 3), Answer("B"))
    lines = render_ansi(env.state).splitlines()
    assert lines[0] == "task  DEFAULT  turn 3/6  ·  48/96 frames  ·  answered"
    assert lines[1:4] == ["Which?", "  A. red", "  B. blue"]
    # 64 columns for 600 s: 300 to 330 s are columns 32 to 35, each with frames.
    assert lines[5] == f"turn 1  |{' ' * 32}....{' ' * 28}| crop 300 to 330 s, 16 frames"
    assert lines[6].endswith("| crop 9 to 3 s (order: The end must be after the start, got 9 to 3 s.)")
    assert lines[7].endswith("| answer B")


def test_the_text_form_holds_no_commands_for_a_terminal():
    text = render_ansi(played(question="a\x1b[2Jb\nc", options=("\x07", "x")).state)
    assert "\x1b" not in text and "\x07" not in text
    assert "a [2Jb c" in text
