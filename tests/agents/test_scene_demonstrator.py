"""Demonstrations in words: what they say follows from what was shown, and they find what they look for."""

import re

import numpy as np
import pytest

from agents.demonstrations.evidence import ScriptedTurn
from agents.demonstrations.scenes import SceneDemonstrator
from videogym import State, VideoQAEnv
from videogym.grammars import get_grammar
from videogym.video.synthetic.script import EVENT_COLOURS, SCENE_COLOURS

TASKS = "procedural:brief_event?level=0&duration_s=256&fps=4&size=32x32&event_s={}&count=200"
CASES = {"LONGVT_TINY": "2", "VIDEO_MTR_TINY": "6"}  # and the seconds of an event, which few looks miss


def episodes(recipe: str, count: int, **options: float) -> list[list[tuple[State, ScriptedTurn]]]:
    """Whole episodes, each as states and what was said in them; the last state says nothing."""
    env = VideoQAEnv(TASKS.format(CASES[recipe]), recipe)
    grammar = get_grammar(env.recipe.grammar)
    speak = SceneDemonstrator(grammar, 0, **{"wrong_looks": 0.0, **options})  # type: ignore[arg-type]
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


def test_other_videos_have_no_words() -> None:
    """A question about two scenes is refused, and so are shares beyond 1."""
    env = VideoQAEnv("procedural:event_order?level=0&duration_s=256&count=1", "LONGVT_TINY")
    env.reset(seed=0)
    grammar = get_grammar("longvt/strict")
    with pytest.raises(ValueError, match="one scene"):
        SceneDemonstrator(grammar, 0)(env.state)
    with pytest.raises(ValueError, match=r"shares, got 0\.8 and 0\.3"):
        SceneDemonstrator(grammar, 0, wrong_looks=0.8, glances=0.3)
