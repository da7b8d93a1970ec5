"""The question put again, to whom saw the retrieved frames alone: what is shown, paid and stored."""

# ruff: noqa: D102, D103

from dataclasses import dataclass, field, replace

import pytest

from videogym import Answer, Crop, Term, VideoQAEnv
from videogym.recipes import DEFAULT
from videogym.responding import CompletenessVerifier, NoDescription, ResponderError
from videogym.rewards import Completeness
from videogym.testing.env_suite import check_environment
from videogym.testing.exploits import EXPLOITS, measure
from videogym.traces import RecordTraces, from_line, read_traces, to_line

TASKS = "procedural:brief_event?duration_s=60&count=20&size=64x36"


@dataclass(frozen=True)
class Second:
    """Answers as it is told to."""

    text: str | None = "A"
    seen: list = field(default_factory=list, hash=False, compare=False)
    deadline_s: float = 5.0

    def __call__(self, prompt):
        self.seen.append(prompt)
        if self.text is None:
            raise NoDescription("nobody is there")
        return self.text


def recipe(second, frames="all", judge=None, gated="no"):
    function = Completeness() if judge is None else Completeness(judge)
    term = Term("complete", "trajectory", function, weight=0.5, gated=gated)
    verifier = None if second is None else CompletenessVerifier(second, frames)
    return replace(DEFAULT, name="AGAIN", terms=(*DEFAULT.terms, term), verifier=verifier)


def played(second, *looks, right=True, told=None, **changes):
    env = VideoQAEnv(TASKS, recipe(second, **changes))
    env.reset(seed=0)
    truth = env.state.task.answer
    if second is not None and second.text == "right":
        second = replace(second, text=truth)
        env.close()
        return played(second, *looks, right=right, **changes)
    for look in looks:
        env.step(look)
    wrong = next(letter for letter in env.state.task.letters if letter != truth)
    *_, info = env.step(Answer(truth if right else wrong))
    return env, info


def paid(info):
    return float(info["reward_terms"]["complete"]) if info["reward_present"]["complete"] else None


LOOKS = (Crop(5.0, 8.0), Crop(20.0, 24.0, (0.0, 0.0, 0.5, 0.5)))


@pytest.mark.parametrize(
    ("text", "right", "expected"),
    [("right", True, 0.5), ("right", False, 0.0), ("no idea", True, 0.0), ("", True, 0.0)],
)
def test_it_pays_if_both_answers_are_right(text, right, expected):
    _, info = played(Second(text), *LOOKS, right=right)
    assert paid(info) == expected


def test_an_answer_in_tags_is_what_stands_between_them():
    env, _ = played(Second("right"), *LOOKS)
    letter = env.state.task.answer
    _, info = played(Second(f"<think>C, B, A or D?</think><answer> {letter} </answer>"), *LOOKS)
    assert paid(info) == 0.5


def test_where_nobody_can_be_asked_it_is_absent_and_not_nothing():
    for second, looks in ((None, LOOKS), (Second(None), LOOKS), (Second("right"), ())):
        env, info = played(second, *looks)
        assert paid(info) is None and env.state.turns[-1].verifier_answer is None
        assert info["is_success"]
    _, info = played(Second("right"), *LOOKS, judge=abstains)
    assert paid(info) is None


def abstains(task, answer):
    return None


def test_it_sees_the_frames_of_the_looks_the_question_and_nothing_else():
    env, _ = played(second := Second("A"), Crop(5.0, 8.0), Crop(90.0, 95.0), LOOKS[1])
    (prompt,) = second.seen
    clips = [result.clip for turn in env.state.turns for result in turn.results if result.clip]
    assert len(clips) == 2  # what was refused brought nothing, and the skim is not retrieved
    assert prompt.times_s == clips[0].times_s + clips[1].times_s
    assert prompt.regions == (None,) * len(clips[0].times_s) + ((0.0, 0.0, 0.5, 0.5),) * len(
        clips[1].times_s
    )
    task = env.state.task
    lines = (task.question, *task.labelled_options, "Answer with the letter of one option.")
    assert prompt.request == "\n".join(lines)
    env, _ = played(last := Second("A"), *LOOKS, frames="last")
    assert last.seen[0].times_s == env.state.turns[1].clips[0].times_s


def test_it_is_asked_once_when_the_episode_ends_with_an_answer():
    second = Second("A")
    env = VideoQAEnv(TASKS, recipe(second, gated="all"))
    env.reset(seed=0)
    for _ in range(6):
        env.step(Crop(1.0, 9.0))
    assert env.state.ending == "turn_limit" and not second.seen
    played(other := Second("A"), *LOOKS, right=False, gated="all")
    assert len(other.seen) == 1  # the gate reads what was said


def test_a_second_policy_that_fails_stops_the_run_and_frames_are_checked():
    with pytest.raises(ResponderError, match="must give a text"):
        played(Second(7), *LOOKS)
    with pytest.raises(ValueError, match="'all' or 'last', got 'first'"):
        CompletenessVerifier(Second(), "first")
    identities = {recipe(Second(), frames).identity for frames in ("all", "last")} | {recipe(None).identity}
    assert len(identities) == 3


def test_a_trace_holds_what_was_said(tmp_path):
    env = RecordTraces(VideoQAEnv(TASKS, recipe(Second("</think> A"))), tmp_path / "t.jsonl")
    env.reset(seed=0)
    env.step(LOOKS[0])
    env.step(Answer("A"))
    (trace,) = read_traces(tmp_path / "t.jsonl").episodes
    assert trace.turns[-1].turn.verifier_answer == "</think> A" and from_line(to_line(trace)) == trace


def test_the_environment_keeps_its_contract_and_the_term_pays_nothing_for_nothing():
    check_environment(lambda: VideoQAEnv(TASKS, recipe(Second("A"))), episodes=1)
    from videogym.datasets import load_tasks

    tasks = load_tasks("procedural:brief_event?duration_s=60&count=6&split=test&size=64x36")
    for exploit in EXPLOITS[:4]:
        assert measure(recipe(Second("A")), exploit, tasks, episodes=6).low <= 0, exploit.name


def test_identities_and_traces_of_before_are_known(tmp_path):
    """By other names the same recipe and the same line; the literals were made before the renaming."""
    identities = [recipe(Second(), frames).identity.partition("@")[2] for frames in ("all", "last")]
    module = Second.__module__
    assert module != "test_completeness" or identities == ["991280f679a7", "61bc5f63b36c"]
    env = RecordTraces(VideoQAEnv(TASKS, recipe(Second("B"))), tmp_path / "t.jsonl")
    env.reset(seed=0)
    for action in (*LOOKS, Answer("A")):
        env.step(action)
    env.close()
    (line,) = (tmp_path / "t.jsonl").read_bytes().splitlines()
    assert line.count(b'"verifier_answer": "B"') == 1
    assert from_line(line.replace(b'"verifier_answer"', b'"again"')) == from_line(line)
