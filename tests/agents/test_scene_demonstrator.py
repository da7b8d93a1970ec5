"""Demonstrations in words: what they say follows from what was shown, and they find what they look for."""

import re
from typing import Any

import numpy as np
import pytest

from agents.demonstrations.evidence import ScriptedTurn
from agents.demonstrations.scenes import SceneDemonstrator
from videogym import State, VideoQAEnv
from videogym.grammars import get_grammar
from videogym.video.synthetic import Address, write_script
from videogym.video.synthetic.script import EVENT_COLOURS, SCENE_COLOURS

TASKS = "procedural:brief_event?level=0&duration_s=256&fps=4&size=32x32&event_s={}&count=200"
CASES = {"LONGVT_TINY": "2", "VIDEO_MTR_TINY": "6"}  # and the seconds of an event, which few looks miss


def episodes(recipe: str, count: int, **options: Any) -> list[list[tuple[State, ScriptedTurn]]]:
    """Whole episodes, each as states and what was said in them; the last state says nothing."""
    env = VideoQAEnv(TASKS.format(CASES[recipe]), recipe)
    grammar = get_grammar(env.recipe.grammar)
    speak = SceneDemonstrator(grammar, 0, **{"wrong_looks": 0.0, **options})
    played = []
    for task in env.tasks[:count]:
        env.reset(options={"task_id": task.task_id})
        steps = []
        while not env.state.terminated:
            said = speak(env.state)
            steps.append((env.state, said))
            _, _, _, _, info = env.step(grammar.parse(said.text, env.state))
            assert not info["invalid"], info["error_code"]
        steps.append((env.state, ScriptedTurn("", False)))
        played.append(steps)
    return played


def is_right(state: State) -> bool:
    """Whether the last output answered with the task's letter, or the option's words."""
    right = (state.task.answer, state.task.options[state.task.letters.index(state.task.answer)])
    return any((state.turns[-1].text or "").endswith(f"<answer>{answer}</answer>") for answer in right)


@pytest.mark.parametrize("recipe", CASES)
def test_every_question_is_answered_after_its_evidence_was_shown(recipe: str) -> None:
    """And before that no output names the right colour, nor does the skim show it."""
    for steps in episodes(recipe, 40):
        assert is_right(steps[-1][0])
        right = steps[0][0].task.options["ABCD".index(steps[0][0].task.answer)]
        (evidence,) = steps[0][0].task.evidence or ()
        for state, said in steps[:-1]:
            shown = [t for clip in state.clips for t in clip.times_s if evidence.contains(t)]
            assert shown or right not in said.text, (right, said.text)
        no = rf"(\(.\) {right} \w+ no )*"
        read = rf"{no}\({state.task.answer}\) {right} {right} yes" if recipe == "VIDEO_MTR_TINY" else right
        assert re.search(rf"\. {read}</think>", steps[-2][1].text)


def test_the_skim_is_put_into_words_place_by_place() -> None:
    """Every second frame: the colour asked for, the colour there as most pixels have it, no or yes.

    A shape can cover more than half of a frame, and texture shifts a colour towards its neighbour.
    """
    right, all_of_them = 0, 0
    for steps in episodes("LONGVT_TINY", 10):
        state, said = steps[0]
        asked = re.search(r"background is ([a-z]+)", state.task.question)
        assert asked
        *places, last = re.findall(r"([a-z]+) ([a-z]+) (no \d+|yes)", said.text.split("</think>")[0])
        assert {wanted for wanted, _, _ in places} <= {asked[1]} and last == (asked[1], asked[1], "yes")
        assert [int(word.removeprefix("no ")) for _, _, word in places] == [
            int(time_s) for time_s in state.skim.times_s[: 2 * len(places) : 2]
        ]
        assert asked[1] not in [colour for _, colour, _ in places]
        words = [(colour, state.skim.times_s[2 * i]) for i, (_, colour, _) in enumerate([*places, last])]
        env = VideoQAEnv([state.task], "LONGVT_TINY")
        frames = env.store.frames(state.task.video, [time_s for _, time_s in words], size=(28, 28))
        for (colour, _), pixels in zip(words, frames.pixels, strict=True):
            middle = np.median(pixels.reshape(-1, 3), axis=0)
            order = sorted(SCENE_COLOURS, key=lambda name: np.abs(middle - SCENE_COLOURS[name]).sum())
            right += colour in order[:2]
            all_of_them += 1
    assert right >= 0.9 * all_of_them


def test_a_look_is_put_into_words_frame_by_frame() -> None:
    """As many words as frames; the right colour only at the evidence."""
    for steps in episodes("LONGVT_TINY", 20):
        (state, said), task = steps[-2], steps[0][0].task
        times_s = state.turns[-1].clips[0].times_s
        words = said.text.removeprefix("<think>").split(".")[0].split()
        assert len(words) == len(times_s) == 16
        right = task.options[task.letters.index(task.answer)]
        (evidence,) = task.evidence or ()
        for word, time_s in zip(words, times_s, strict=True):
            assert (word == right) or not evidence.contains(time_s)
            assert word in SCENE_COLOURS or word in EVENT_COLOURS


def test_answers_are_words_where_the_rules_let_them() -> None:
    """Video-MTR's rules take letters only."""
    for recipe, is_letter in (("LONGVT_TINY", False), ("VIDEO_MTR_TINY", True)):
        ((*_, (_, said), (end, _)),) = episodes(recipe, 1)
        answer = said.text.split("<answer>")[1].removesuffix("</answer>")
        assert (answer == end.task.answer) is is_letter and is_right(end)


def test_a_wrong_look_is_mended_and_not_to_be_imitated() -> None:
    """Told to err always, the first look shows no evidence; the next says so and finds it."""
    mended = 0
    for steps in episodes("LONGVT_TINY", 40, wrong_looks=1.0):
        (_, first), (_, second) = steps[:2]
        if not first.trainable:
            mended += 1
            assert "none" in second.text and second.trainable and is_right(steps[-1][0])
    assert mended > 30


@pytest.mark.parametrize("recipe", CASES)
def test_a_glance_goes_straight_to_the_evidence_and_teaches_only_to_read(recipe: str) -> None:
    """Its frames show the evidence; the look is not learned, the answer is."""
    for steps in episodes(recipe, 100, glances=1.0):
        assert [said.trainable for _, said in steps[:-1]] == [False, True]
        assert is_right(steps[-1][0])


def thought(said: ScriptedTurn) -> str:
    """What was said before a move."""
    return said.text.removeprefix("<think>").split("</think>")[0]


def answered(state: State) -> str:
    """The option that the last output answered with."""
    answer = (state.turns[-1].text or "").split("<answer>")[1].removesuffix("</answer>")
    task = state.task
    return task.options[task.letters.index(answer)] if answer in task.letters else answer


def shapes_shown(state: State) -> list[str]:
    """Colours of the shapes in the newest look, in order."""
    script = write_script(Address.parse(state.task.video))
    frames = [round(t * script.address.fps) for clip in state.turns[-1].clips for t in clip.times_s]
    scenes = [script.scene_at(frame) for frame in frames]
    events = [scene.event_at(frame) for scene, frame in zip(scenes, frames, strict=True)]
    return [event.colour for event in events if event is not None]


@pytest.mark.parametrize("recipe", CASES)
def test_who_looks_hastily_and_gives_up_answers_by_what_it_saw(recipe: str) -> None:
    """Two turns, both imitated: the colour asked for, then the last shape of the look, or any option."""
    guesses, seen = [], 0
    for steps in episodes(recipe, 200, hasty=1.0, gives_up=1.0):
        (first, said), (second, told), (end, _) = steps
        asked = re.search(r"background is ([a-z]+)", first.task.question)
        assert asked and thought(said) == asked[1] and said.trainable and told.trainable
        assert not any(segment.contains(t) for segment in first.task.evidence or () for t in times(second))
        shown = shapes_shown(second)
        if shown:
            seen += 1
            assert answered(end) == shown[-1] and not is_right(end)
        else:
            assert thought(told).endswith(". none")
            guesses.append(end.task.options.index(answered(end)))
    # Of a uniform draw from four no option comes less than 0.1 or more than 0.45 of 100 times.
    assert seen >= 40 and len(guesses) >= 60
    shares = np.bincount(guesses, minlength=4) / len(guesses)
    assert shares.min() > 0.1 and shares.max() < 0.45


def times(state: State) -> list[float]:
    """Of the frames of the newest look."""
    return [time_s for clip in state.turns[-1].clips for time_s in clip.times_s]


@pytest.mark.parametrize("recipe", CASES)
def test_who_looks_hastily_and_does_not_give_up_searches_and_is_right(recipe: str) -> None:
    """Three turns, all imitated; the second says that there was none."""
    for steps in episodes(recipe, 40, hasty=1.0, gives_up=0.0):
        assert [said.trainable for _, said in steps[:-1]] == [True, True, True]
        assert ". none. " in thought(steps[1][1]) and is_right(steps[-1][0])


@pytest.mark.parametrize("words", ["colour", "search"])
def test_shares_are_what_they_are_called(words: str) -> None:
    """Of 200 episodes 0.3 begin hastily, give or take four standard deviations; of these half give up.

    A search whose scene lies too early to stop before it is whole.
    """
    begun = episodes("LONGVT_TINY", 200, hasty=0.3, gives_up=0.5, hasty_words=words)
    searched = [thought(steps[0][1]).endswith("yes") for steps in begun]
    lengths = [len(steps) - 1 for steps, whole in zip(begun, searched, strict=True) if not whole]
    assert set(lengths) == {2, 3} and 0.2 < lengths.count(2) / len(lengths) < 0.8
    low, high = (0.17, 0.43) if words == "colour" else (0.08, 0.43)
    assert low < len(lengths) / 200 < high
    for steps, whole in zip(begun, searched, strict=True):
        assert all(said.trainable for _, said in steps[:-1])
        if whole:
            assert is_right(steps[-1][0])


def test_a_hasty_search_is_the_beginning_of_the_whole_one() -> None:
    """And looks where it stopped, at another scene."""
    stopped = 0
    pairs = (episodes("LONGVT_TINY", 60, hasty=share, hasty_words="search") for share in (1.0, 0.0))
    for hasty, whole in zip(*pairs, strict=True):
        said = thought(hasty[0][1])
        if said.endswith("yes"):
            assert said == thought(whole[0][1])
            continue
        stopped += 1
        assert thought(whole[0][1]).startswith(f"{said} ")
        (look,) = hasty[1][0].turns[0].results
        assert look.action is not None and look.action.start_s == float(said.rsplit(" ", 1)[1])  # type: ignore[union-attr]
    assert stopped > 30


@pytest.mark.parametrize(("length", "seconds"), [(0, 19.0), (5, 5.0), (64, 64.0), (999, 256.0)])
def test_hasty_looks_are_as_long_as_they_are_told(length: int, seconds: float) -> None:
    """By default as long as the shortest scene, 0.0735 of 256 s, after whole seconds are reached."""
    for steps in episodes("LONGVT_TINY", 10, hasty=1.0, hasty_look=length, hasty_words="search"):
        if thought(steps[0][1]).endswith("yes"):
            continue
        (look,) = steps[1][0].turns[0].results
        assert look.action is not None
        found = look.action.end_s - look.action.start_s  # type: ignore[union-attr]
        assert found >= seconds if length == 0 else found == seconds


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"hasty": 1.2}, r"hasty must be a share in \[0, 1\], got 1\.2"),
        ({"hasty": float("nan")}, "hasty must be a share"),
        ({"gives_up": -0.1}, "gives_up must be a share"),
        ({"hasty": 0.7, "glances": 0.2, "wrong_looks": 0.2}, r"add up to at most 1, got 1\.1: wrong_looks"),
        ({"hasty_words": "all"}, "hasty_words must be one of"),
        ({"hasty_look": -1}, "hasty_look must be at least 0, got -1"),
    ],
)
def test_what_cannot_be_meant_is_refused(options: dict[str, Any], told: str) -> None:
    """With the value, and what is allowed."""
    with pytest.raises(ValueError, match=told):
        SceneDemonstrator(get_grammar("longvt/strict"), 0, **options)


def test_shares_may_add_up_to_one() -> None:
    """Though 0.7 + 0.2 + 0.1 is not 1 in floating point."""
    SceneDemonstrator(get_grammar("longvt/strict"), 0, hasty=0.7, glances=0.2, wrong_looks=0.1)


def test_other_videos_have_no_words() -> None:
    """A question about two scenes is refused, and so are shares beyond 1."""
    env = VideoQAEnv("procedural:event_order?level=0&duration_s=256&count=1", "LONGVT_TINY")
    env.reset(seed=0)
    grammar = get_grammar("longvt/strict")
    with pytest.raises(ValueError, match="one scene"):
        SceneDemonstrator(grammar, 0)(env.state)
    with pytest.raises(ValueError, match=r"at most 1, got 1\.1: wrong_looks 0\.8, glances 0\.3"):
        SceneDemonstrator(grammar, 0, wrong_looks=0.8, glances=0.3)
