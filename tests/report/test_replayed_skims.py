"""An episode that is played again begins with the frames that it began with, or is refused.

Expected frames are those of even skims: ``trunc(linspace(0, N - 1, count))``, which repeats frames where a
video has fewer than are shown.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import SimpleNamespace

import pytest

from videogym import Answer, Task, VideoQAEnv
from videogym.recipes import DEFAULT, Recipe
from videogym.testing.coded_clips import write_clip
from videogym.traces.replay import ReplayError, replayed

FRAMES = 5
EVEN = replace(DEFAULT, name="EVEN", rules=replace(DEFAULT.rules, skim_frames=16, skim_fps=0.0))


@dataclass
class Stored:
    """What a run keeps of an episode that was answered at once."""

    recipe: str
    first_times_s: Sequence[float]
    success: bool
    task_id: str = "short"
    group: str = "short"
    sample_index: int = 0
    ending: str = "answered"
    abort_reason: str = ""
    played: list[SimpleNamespace] = field(default_factory=list)


@pytest.fixture
def env(tmp_path: Path) -> VideoQAEnv:
    """Episodes about a video of five frames, of which 16 are shown first."""
    return VideoQAEnv([asked(tmp_path, FRAMES)], EVEN)


def asked(folder: Path, frames: int) -> Task:
    """A question about a video of so many frames."""
    path = folder / f"{frames}.mp4"
    write_clip(path, frames)
    return Task("short", str(path), "What?", "choice", ("a", "b"), "A", None, "test")


def stored(env: VideoQAEnv, recipe: Recipe, skim_frames: int | None, filled: bool = False) -> Stored:
    """An episode as it is played with so many first frames."""
    drawn = {} if skim_frames is None else {"skim_frames": skim_frames}
    env.reset(options={"task_id": "short", **drawn})
    shown = env.state.skim.times_s
    text = recipe.language.write(Answer("A"), env.state)
    env.step(recipe.language.parse(text, env.state))
    turn = SimpleNamespace(text=text, error="", looked=False, reward=0.0, terms={})
    return Stored(recipe.identity, (*shown, shown[-1]) if filled else shown, True, played=[turn])


@pytest.mark.parametrize("drawn", [None, 16, 8, 7, 6, 5, 3, 1])
@pytest.mark.parametrize("filled", [False, True], ids=["images", "a video's last pair"])
def test_a_skim_of_a_short_video_is_replayed_as_it_was(
    env: VideoQAEnv, drawn: int | None, filled: bool
) -> None:
    """Where it has more frames than there are, and where fewer were drawn."""
    one = stored(env, EVEN, drawn, filled)
    count = drawn or 16
    places = [(FRAMES - 1) * i // (count - 1) for i in range(count)] if count > 1 else [0]
    frames_s = [place * env.state.video.duration_s / FRAMES for place in places]
    played = env.state
    again = replayed(one, env, "run")
    assert again.skim == played.skim and again.skim.times_s == pytest.approx(frames_s)


def test_a_skim_of_another_video_is_refused(env: VideoQAEnv, tmp_path: Path) -> None:
    """With the reason: the file is not what it was."""
    one = stored(env, EVEN, None)
    other = VideoQAEnv([asked(tmp_path, FRAMES + 1)], EVEN)
    with pytest.raises(ReplayError, match="does not begin as it did: no skim of the video shows its 16"):
        replayed(one, other, "run")
