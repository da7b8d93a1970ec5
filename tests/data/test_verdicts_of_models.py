"""Replies of models that decide about one question: what each says, and what says nothing.

One video of 60 s, one question about its evidence, and an endpoint that replies to each prompt as a test
tells it to.
"""

# ruff: noqa: D103

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from videogym import Segment
from videogym.data import (
    Asker,
    FilterOptions,
    SceneOptions,
    Summary,
    WorkFolder,
    filter_questions,
    find_scenes,
    play_traces,
    playing,
)
from videogym.data.filtering import SkimAnswers
from videogym.data.playing import wide_window
from videogym.data.work import Item, run_step
from videogym.datasets.task_files import task_of_row
from videogym.judging import Reply
from videogym.testing.coded_clips import write_clip

EVIDENCE = (20.0, 30.0)
CUT = Reply("Let me think about what", complete=False)
NO = Reply('{"answer": "unknown"}')
SURE = Reply('{"score": 0.95, "why": "it is seen"}')
PROMPTS = {
    "Answer this question about a video that you cannot see": "blind",
    "Answer this question about a video from the frames": "skim",
    "Somebody claims": "verify",
    "You show others": "teach",
    "You compare an answer": "judge",
}


class Scripted:
    """Replies to each prompt with what stands for it; a list is the turns of an episode."""

    def __init__(self, replies: Mapping[str, Reply | list[Reply]]) -> None:
        self.replies, self.asked = replies, []  # type: ignore[var-annotated]

    def ask(self, request: Mapping[str, Any]) -> Reply:
        """The reply to a prompt of ours."""
        words = request["messages"][0]["content"][0]["text"]
        name = next(name for start, name in PROMPTS.items() if words.startswith(start))
        self.asked.append(name)
        reply = self.replies[name]
        if isinstance(reply, Reply):
            return reply
        return reply[sum(message["role"] == "assistant" for message in request["messages"])]


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("videos")
    write_clip(folder / "a.mp4", 240, rate=4, size=(64, 48))
    return folder


def asked_about(work: WorkFolder, videos: Path, answer: str = "Ann", name: str = "a.mp4") -> None:
    """A folder of work with one question."""
    find_scenes(work, [name], videos, SceneOptions(cuts="none", max_scene_s=60.0))
    (scenes,) = work.kept("scenes")
    place, facts = scenes["place"], {name: scenes[name] for name in ("video", "fingerprint", "duration_s")}
    extent = {"start_s": 0.0, "end_s": scenes["duration_s"]}
    run_step(work, "captions", [Item(f"{place}#0", (scenes["key"],), {}, None)], lambda _: {"caption": "a"})
    (caption,) = work.kept("captions")
    entry = {"question": "Who?", "answer": answer, "start_s": EVIDENCE[0], "end_s": EVIDENCE[1]}
    made = {**facts, **extent, "questions": [entry]}
    run_step(work, "questions", [Item(f"{place}#0", (caption["key"],), {}, None)], lambda _: made)


def filtered(
    work: WorkFolder, model: Scripted, skim: SkimAnswers = "drop", max_tokens: int = 2048
) -> Summary:
    asker = Asker(model, "scripted", work.file("replies"), max_tokens)
    return filter_questions(work, asker, FilterOptions(skim=skim))


@pytest.mark.parametrize("prompt", ["blind", "skim"])
@pytest.mark.parametrize(
    ("reply", "code"),
    [(CUT, "cut"), (Reply("Ann."), "malformed"), (Reply('{"answer": ["Ann"]}'), "malformed")],
)
@pytest.mark.parametrize("skim", ["drop", "mark"])
def test_an_answer_that_is_cut_or_malformed_drops_the_question(
    videos: Path, tmp_path: Path, prompt: str, reply: Reply, code: str, skim: SkimAnswers
) -> None:
    """Who did not finish has not said that nothing but the evidence tells the answer."""
    model = Scripted({"blind": NO, "skim": NO, "verify": SURE, prompt: reply})
    with WorkFolder(tmp_path) as work:
        asked_about(work, videos)
        summary = filtered(work, model, skim)
        assert (summary.kept, summary.dropped) == (0, {code: 1})
        assert f"'Who?', {prompt}: " in summary.reasons[0]


def test_who_refuses_to_answer_blind_has_not_answered(videos: Path, tmp_path: Path) -> None:
    refusal = Reply("I can't see the video.")
    with WorkFolder(tmp_path / "a") as work:
        asked_about(work, videos)
        assert filtered(work, Scripted({"blind": refusal, "skim": NO, "verify": SURE})).kept == 1
    with WorkFolder(tmp_path / "b") as work:
        asked_about(work, videos)
        assert filtered(work, Scripted({"blind": NO, "skim": refusal})).dropped == {"refusal": 1}


@pytest.mark.parametrize(
    ("verdict", "dropped"),
    [
        (Reply("They say the same.\nJudgement: 1"), {"text_only": 1}),
        (Reply("They do not.\nJudgement: 0"), {}),
        (CUT, {"cut": 1}),
        (Reply("They say the same."), {"malformed": 1}),
    ],
)
def test_a_judge_that_gives_no_verdict_has_not_said_that_an_answer_is_wrong(
    videos: Path, tmp_path: Path, verdict: Reply, dropped: dict[str, int]
) -> None:
    model = Scripted({"blind": Reply('{"answer": "Anne"}'), "judge": verdict, "skim": NO, "verify": SURE})
    with WorkFolder(tmp_path) as work:
        asked_about(work, videos)
        assert filtered(work, model).dropped == dropped


@pytest.mark.parametrize(
    ("truth", "blind", "dropped", "judged"),
    [
        ("None", "None.", {"text_only": 1}, 0),
        ("Unknown", "unknown", {"text_only": 1}, 0),
        ("None of them", "none", {"text_only": 1}, 1),
        ("Ann", "none", {}, 0),
        ("Ann", "Unknown.", {}, 0),
    ],
)
def test_a_word_for_no_answer_is_one_where_the_true_one_says_it(
    videos: Path, tmp_path: Path, truth: str, blind: str, dropped: dict[str, int], judged: int
) -> None:
    said = Reply(json.dumps({"answer": blind}))
    model = Scripted({"blind": said, "judge": Reply("Judgement: 1"), "skim": NO, "verify": SURE})
    with WorkFolder(tmp_path) as work:
        asked_about(work, videos, truth)
        filtered(work, model, "keep")
        summary = filtered(work, model, "keep")
        assert summary.dropped == dropped and model.asked.count("judge") == judged


# --- traces --------------------------------------------------------------------------------------


def turn(tool: str, thought: str = "I look.", **arguments: Any) -> Reply:
    return Reply(json.dumps({"thought": thought, "tool": tool, "arguments": arguments}))


def look(start_s: float, end_s: float, thought: str = "I look.", name: str = "a.mp4") -> Reply:
    return turn("crop_video", thought, video_path=name, start_time=start_s, end_time=end_s)


def played(
    work: WorkFolder,
    videos: Path,
    turns: list[Reply],
    truth: str = "Ann",
    verdict: Reply = CUT,
    name: str = "a.mp4",
) -> tuple[Summary, dict[str, Any]]:
    asked_about(work, videos, truth, name)
    sure = Scripted({"blind": Reply("I can't see it."), "verify": SURE})
    assert filtered(work, sure, "keep").kept == 1
    model = Scripted({"teach": turns, "judge": verdict})
    summary = play_traces(work, Asker(model, "scripted", work.file("replies")))
    return summary, work.file("traces").rows[-1]


@pytest.mark.parametrize(
    ("looks", "mended"),
    [([EVIDENCE], False), ([(40.0, 50.0), EVIDENCE], True), ([EVIDENCE, (19.0, 31.0)], False)],
)
def test_only_what_was_told_a_window_after_a_look_that_missed_is_mended(
    videos: Path, tmp_path: Path, looks: list[tuple[float, float]], mended: bool
) -> None:
    turns = [*(look(*segment) for segment in looks), turn("answer", text="Ann")]
    with WorkFolder(tmp_path) as work:
        summary, line = played(work, videos, turns)
        assert summary.kept == 1 and line["mended"] is mended
        told = [row for row in work.file("replies").rows if "A note to you alone" in str(row["request"])]
        assert bool(told) is mended


@pytest.mark.parametrize(
    ("name", "called", "told_s"),
    [("a.mp4", "a.mp4", 4.0), ("take #2.mp4", "video-9dfa0f50.mp4", 9.0)],  # the SHA-1 of the name
)
def test_the_name_of_the_video_tells_no_bound(
    videos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, called: str, told_s: float
) -> None:
    """Every call repeats it, or what stands for it; here it holds the number of which the note tells."""
    monkeypatch.setattr(playing, "wide_window", lambda *_: Segment(told_s, 44.0))
    turns = [look(40.0, 50.0, name=called), look(*EVIDENCE, name=called), turn("answer", text="Ann")]
    shutil.copy(videos / "a.mp4", tmp_path / name)
    with WorkFolder(tmp_path / "work") as work:
        summary, line = played(work, tmp_path, turns, name=name)
        assert (summary.kept, line["mended"]) == (1, True)


def test_a_number_that_no_note_told_leaks_none(videos: Path, tmp_path: Path) -> None:
    """The bounds of the window that the note would have told, in an episode without a note."""
    with WorkFolder(tmp_path) as work:
        asked_about(work, videos)
        filtered(
            work,
            Scripted({"blind": Reply("I can't see it."), "verify": SURE}),
            "keep",
        )
        (row,) = work.kept("filter")
        window = wide_window(task_of_row(row["task"]), 60.0)
        thought = f"Between {window.start_s} s and {window.end_s} s she is seen."
        summary, _ = played(work, videos, [look(*EVIDENCE, thought), turn("answer", text="Ann")])
        assert (summary.kept, summary.dropped) == (1, {})


@pytest.mark.parametrize(
    ("truth", "answer", "verdict", "dropped"),
    [
        ("None", "none", CUT, {}),
        ("Ann", "none", CUT, {"wrong_answer": 1}),
        ("Ann", "Anne", CUT, {"cut": 1}),
        ("Ann", "Anne", Reply("The same."), {"malformed": 1}),
        ("Ann", "Anne", Reply("Judgement: 0"), {"wrong_answer": 1}),
    ],
)
def test_a_trace_is_wrong_if_a_verdict_says_so(
    videos: Path, tmp_path: Path, truth: str, answer: str, verdict: Reply, dropped: dict[str, int]
) -> None:
    turns = [look(*EVIDENCE), turn("answer", text=answer)]
    with WorkFolder(tmp_path) as work:
        summary, _ = played(work, videos, turns, truth, verdict)
        assert summary.dropped == dropped
