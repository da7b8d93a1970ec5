"""Which questions are fit to train on: each is kept, or dropped with one reason.

| code | dropped because |
|---|---|
| `malformed` | a field is missing or of another type, or an answer or a verdict cannot be read |
| `span` | the evidence is not in the part of the video that the question was made of, or too long |
| `timestamp` | the question tells a time |
| `duplicate` | another question of the video asks the same about the same moment |
| `text_only` | a model that sees nothing answers it |
| `skim` | a model that sees the first frames of an episode answers it; kept and marked, if asked to |
| `unverified` | a model that sees the evidence is less sure than the threshold that the answer is right |
| `refusal`, `cut` | the verdict of a model is none; who refuses to answer blind has not answered |
| `unreadable`, `unfit` | the video cannot be shown there, or no episode of the recipe begins with it |

What costs nothing comes first, and nobody is asked about what was dropped. Source: VideoSIAH's filters by
text and by frames, with its threshold of 0.85.
"""

from __future__ import annotations

import math
import re
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import PurePosixPath
from typing import Any, Literal, get_args

from videogym.actions import begin
from videogym.answers import folded, option_named
from videogym.data.asking import Asker, object_in, shown, text_in, text_part, timed_images, user
from videogym.data.captions import segment_frames
from videogym.data.prompts import StepPrompt, step_prompt
from videogym.data.scenes import open_unchanged
from videogym.data.work import Dropped, Item, Made, Progress, Summary, WorkFolder, hashed, run_step
from videogym.datasets.task_files import task_of_row, task_row
from videogym.geometry import Segment, segment_iou
from videogym.judging import judge_lenient, parse_verdict_strict, token_f1
from videogym.recipes import Recipe, get_recipe
from videogym.sizes import clip_size
from videogym.state import Task
from videogym.video import FrameStore, UnfitVideo, Video

SOURCE = "videogym-data"
RECIPE = "LONGVT/paper-64"
_VERSION = 2
_SAME_QUESTION = 0.9  # F1 of words from which on two questions of one moment are the same
_SAME_MOMENT = 0.5  # IoU
_TIME = re.compile(
    r"\b\d{1,2}:\d{2}\b|\b\d+(?:\.\d+)?\s*(?:s|sec|secs|second|seconds|min|minute|minutes)\b", re.IGNORECASE
)
_ROUNDING_S = 0.05  # by which a span may leave what it was made of
_NO_ANSWER = {"unknown", "none", "n/a", "not sure", "i don't know"}
SkimAnswers = Literal["drop", "mark", "keep"]


@dataclass(frozen=True)
class FilterOptions:
    """What is kept.

    Raises:
        ValueError: a value is out of range.
    """

    threshold: float = 0.85  # least score of the verification
    skim: SkimAnswers = (
        "drop"  # what the skim answers; "mark": `skim_suffices` in metadata; "keep": not asked
    )
    recipe: str = RECIPE  # whose first frames are the skim
    max_share: float = 0.5  # of the video, of evidence
    verify_fps: float = 2.0
    verify_frames: int = 32

    def __post_init__(self) -> None:
        if not 0.0 <= self.threshold <= 1.0:
            raise ValueError(f"threshold must lie in [0, 1], got {self.threshold}")
        if self.skim not in get_args(SkimAnswers):
            raise ValueError(f"skim must be one of {', '.join(get_args(SkimAnswers))}, got {self.skim!r}")
        if not 0.0 < self.max_share <= 1.0:
            raise ValueError(f"max_share must be above 0 and at most 1, got {self.max_share}")
        get_recipe(self.recipe)


def filter_questions(
    work: WorkFolder,
    asker: Asker,
    options: FilterOptions = FilterOptions(),
    prompts: Mapping[str, StepPrompt] | None = None,
    *,
    jobs: int = 1,
    progress: Progress | None = None,
) -> Summary:
    """Decide about every question.

    Args:
        work: whose questions.
        asker: who is asked.
        options: what is kept.
        prompts: those of ``blind``, ``skim``, ``verify`` and ``judge`` that are not ours.
        jobs: questions decided about at once.
        progress: called with (done, total).

    Raises:
        DataError: there are no questions yet, or the folder holds something else.
        VideoChanged: a video is not the one whose scenes were found.
        EndpointError: the endpoint cannot be used.
    """
    with FrameStore(video_root=work.video_root) as store:
        gate = _Gate(asker, store, options, prompts or {})
        items = list(_items(work, gate.by))
        return run_step(
            work,
            "filter",
            items,
            gate.decide,
            jobs=jobs,
            progress=progress,
            cost=asker.cost,
            max_tokens=asker.max_tokens,
        )


@dataclass(frozen=True)
class _Question:
    """A question as a reply tells it, and what is known of it without asking anyone."""

    group: dict[str, Any]  # line of the questions
    task: Task | None
    fault: Dropped | None


def _items(work: WorkFolder, by: Mapping[str, Any]) -> list[Item]:
    items = []
    sound: dict[str, list[Task]] = defaultdict(list)  # by video
    for row in work.kept("questions"):
        for i, entry in enumerate(row["questions"]):
            place = f"{row['place']}#{i}"
            found = read_question(row, place, entry, by["max_share"])
            if isinstance(found, Task):
                twin = next((other for other in sound[row["video"]] if _is_same(found, other)), None)
                if twin is not None:
                    said = Dropped("duplicate", f"{found.question!r} asks what {twin.task_id} asks")
                    question = _Question(row, None, said)
                else:
                    sound[row["video"]].append(found)
                    question = _Question(row, found, None)
            else:
                question = _Question(row, None, found)
            # What decides a duplicate lies in other lines.
            content = "" if question.fault is None else hashed(question.fault.code, question.fault.reason)
            items.append(Item(place, (row["key"],), by, question, content))
    return items


def read_question(row: Mapping[str, Any], place: str, entry: Any, max_share: float) -> Task | Dropped:
    """The task of a question as a reply tells it, or what is wrong with it."""
    if not isinstance(entry, dict):
        return Dropped("malformed", f"a question must be an object, got {shown(entry)}")
    question, answer = text_in(entry, "question"), text_in(entry, "answer")
    for text in (question, answer):
        if isinstance(text, Dropped):
            return text
    assert isinstance(question, str) and isinstance(answer, str)
    span = _span(row, entry, max_share)
    if isinstance(span, Dropped):
        return Dropped(span.code, f"{shown(question)}: {span.reason}")
    if _TIME.search(question):
        return Dropped("timestamp", f"{shown(question)} tells a time")
    options = entry.get("options") or []
    if not isinstance(options, list) or not all(isinstance(text, str) and text.strip() for text in options):
        return Dropped(
            "malformed", f"{shown(question)}: options must be a list of texts, got {shown(options)}"
        )
    try:
        task = _task(row, place, question, answer, tuple(options), span)
        task_of_row(task_row(task))  # refuses what no file of tasks can hold, such as half a character
    except ValueError as error:
        return Dropped("malformed", f"{shown(question)}: {error}")
    return task


def _task(
    row: Mapping[str, Any], place: str, question: str, answer: str, options: tuple[str, ...], span: Segment
) -> Task:
    stem = PurePosixPath(row["video"]).stem
    task = Task(
        task_id=f"{stem}-{hashed(row['fingerprint'], place, question)[:10]}",
        video=row["video"],
        question=question,
        kind="choice" if options else "open",
        options=options,
        answer="A" if options else answer,
        evidence=(span,),
        source=SOURCE,
        metadata={"video_fingerprint": row["fingerprint"]},
    )
    if not options:
        return task
    letter = option_named(task, answer)
    if letter is None or len({folded(text) for text in task.options}) < len(task.options):
        raise ValueError(f"{shown(answer)} is not one of the options {shown(options)}")
    return replace(task, answer=letter)


def _span(row: Mapping[str, Any], entry: Mapping[str, Any], max_share: float) -> Segment | Dropped:
    ends: tuple[Any, Any] = (entry.get("start_s"), entry.get("end_s"))
    if not all(type(end) in (int, float) and abs(end) < 1e9 and math.isfinite(end) for end in ends):
        return Dropped(
            "malformed", f"start_s and end_s must be seconds, got {shown(ends[0])} and {shown(ends[1])}"
        )
    start_s, end_s = map(float, ends)
    first_s, last_s = row["start_s"], row["end_s"]
    told = f"the span {start_s:g} to {end_s:g} s"
    if start_s < first_s - _ROUNDING_S or end_s > last_s + _ROUNDING_S:
        return Dropped(
            "span", f"{told} leaves the part of the video that was described, {first_s:g} to {last_s:g} s"
        )
    if end_s - start_s > max_share * row["duration_s"]:
        return Dropped("span", f"{told} is more than {max_share:g} of the video")
    start_s, end_s = max(start_s, first_s), min(end_s, last_s)
    return Segment(start_s, end_s) if start_s < end_s else Dropped("span", f"{told} is none")


def _is_same(task: Task, other: Task) -> bool:
    if folded(task.question) == folded(other.question):
        return True
    assert task.evidence and other.evidence
    alike = token_f1(task.question, other.question) >= _SAME_QUESTION
    return alike and segment_iou(task.evidence[0], other.evidence[0]) >= _SAME_MOMENT


class _Gate:
    """Asks about one question after another."""

    def __init__(
        self, asker: Asker, store: FrameStore, options: FilterOptions, prompts: Mapping[str, StepPrompt]
    ) -> None:
        names = ("blind", "skim", "verify", "judge")
        self._prompts = {name: prompts.get(name) or step_prompt(name) for name in names}
        self._asker, self._store, self._options = asker, store, options
        self._recipe: Recipe = get_recipe(options.recipe)
        self.by = {
            "version": _VERSION,
            "model": asker.model,
            "prompts": {name: prompt.identity for name, prompt in self._prompts.items()},
            "threshold": options.threshold,
            "skim": options.skim,
            "recipe": self._recipe.identity,
            "max_share": options.max_share,
            "verify": [options.verify_fps, options.verify_frames],
        }

    def decide(self, question: _Question) -> Made:
        """Whether a question is kept."""
        task = question.task
        if task is None:
            assert question.fault is not None
            return question.fault
        video = open_unchanged(self._store, question.group)
        blind = self._answers(task, "blind", None)
        if isinstance(blind, Dropped) and blind.code != "refusal":
            return blind
        if blind is True:
            return Dropped("text_only", f"{task.question!r} is answered without the video")
        metadata = dict(task.metadata)
        if self._options.skim != "keep":
            skimmed = self._answers(task, "skim", video)
            if isinstance(skimmed, Dropped):
                return skimmed
            if skimmed and self._options.skim == "drop":
                return Dropped("skim", f"{task.question!r} is answered by the first frames of an episode")
            metadata["skim_suffices"] = skimmed
        score = self._score(task, video)
        if isinstance(score, Dropped):
            return score
        return {"task": task_row(replace(task, metadata={**metadata, "verification": score}))}

    def _answers(self, task: Task, prompt: str, video: Video | None) -> bool | Dropped:
        """Whether a model answers that sees the skim, or nothing; or why that is not known."""
        told = text_part(self._prompts[prompt].fill(question=question_of(task)))
        frames = [] if video is None else self._skim(task, video)
        found = object_in(self._asker.ask(f"filter: {prompt}", [user(told, *frames)]))
        answer = found if isinstance(found, Dropped) else text_in(found, "answer")
        right: bool | Dropped
        if isinstance(answer, Dropped):
            right = answer
        else:
            right = is_right(self._asker, self._prompts["judge"], task, answer)
        if isinstance(right, Dropped):
            return Dropped(right.code, f"{task.question!r}, {prompt}: {right.reason}")
        return right

    def _skim(self, task: Task, video: Video) -> list[dict[str, Any]]:
        rules = self._recipe.rules
        try:
            state = begin(task, video.meta, video.pts_s, rules, self._recipe.identity)
        except ValueError as error:
            raise UnfitVideo(f"{task.video}: {error}") from error
        size = clip_size(state.skim, video.meta, rules)
        return timed_images(
            self._store.frames(task.video, state.skim.times_s, size=size), state.skim.times_s
        )

    def _score(self, task: Task, video: Video) -> float | Dropped:
        """How sure a model is that sees the evidence; or why the question is dropped."""
        options, (span,) = self._options, task.evidence or ()
        frames = segment_frames(
            self._store,
            video,
            task.video,
            span.start_s,
            span.end_s,
            options.verify_fps,
            options.verify_frames,
        )
        told = self._prompts["verify"].fill(question=question_of(task), answer=answer_of(task))
        found = object_in(self._asker.ask("filter: verify", [user(text_part(told), *frames)]))
        if isinstance(found, Dropped):
            return Dropped(found.code, f"{task.question!r}: {found.reason}")
        score: Any = found.get("score")
        if type(score) not in (int, float) or not 0.0 <= score <= 1.0:
            return Dropped("malformed", f"{task.question!r}: score must lie in [0, 1], got {shown(score)}")
        if score < options.threshold:
            why = shown(found.get("why", ""))
            return Dropped(
                "unverified", f"{task.question!r}: {task.answer!r} has a score of {score:g}: {why}"
            )
        return float(score)


def is_right(asker: Asker, prompt: StepPrompt, task: Task, answer: str) -> bool | Dropped:
    """Whether an answer says what the true one says, by rules or a model; or why there is no verdict.

    Args:
        asker: who judges an open answer that is put otherwise.
        prompt: the prompt ``judge``.
        task: the question.
        answer: of a model; "unknown" and its like are none, unless the true one says so too.
    """
    if judge_lenient(task, answer) == 1.0:
        return True
    said = folded(answer).strip(" .")
    if task.kind != "open" or (said in _NO_ANSWER and said not in folded(task.answer)):
        return False
    told = prompt.fill(question=task.question, reference=task.answer, answer=answer)
    reply = asker.ask("judge", [user(text_part(told))])
    if not reply.complete:
        return Dropped("cut", "the reply of the judge stopped before its end")
    verdict = parse_verdict_strict(reply.text)
    if verdict is None:
        return Dropped("malformed", f"no verdict of the judge in {shown(reply.text)}")
    return verdict == 1.0


def question_of(task: Task) -> str:
    """The question with its options."""
    return "\n".join((task.question, *task.labelled_options))


def answer_of(task: Task) -> str:
    """The true answer; of a choice, its option."""
    return task.labelled_options[task.letters.index(task.answer)] if task.options else task.answer
