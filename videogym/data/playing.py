"""Traces: a teacher plays questions in the environment, and what it plays is kept if it is right.

The teacher acts by `ToolEpisode`, so a trace shows the frames that training will show. It is told neither
the answer nor the evidence. After a look that missed, a note tells it of a wide window, drawn at random
around the evidence; the wrong look stays in the trace and is mended by the next. The note is part of the
teacher's conversation and of nothing else, and a trace that repeats it is dropped.

| code | dropped because |
|---|---|
| `no_look`, `no_answer` | it ended without either |
| `wrong_answer` | the answer is not the true one |
| `iou` | the last look overlaps the evidence less than it must |
| `refused_call` | the environment refused a call, which nobody should imitate |
| `leak` | it tells what only the note tells, or speaks of the note |
| `malformed`, `refusal`, `cut` | a reply is no thought and call, or one of the judge no verdict |
| `fault`, `unreadable`, `unfit` | the video cannot be shown |

Source: VideoSIAH's iMCoTT, whose teacher is told answer and window, and whose frames are not those of the
tool; and LongVT's selection of rollouts, right answer and IoU of at least 0.3.
"""

from __future__ import annotations

import json
import random
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from videogym.data.asking import Asker, ContentPart, image_part, object_in, shown, text_in, text_part, user
from videogym.data.filtering import RECIPE, is_right
from videogym.data.prompts import StepPrompt, step_prompt
from videogym.data.work import Dropped, Item, Made, Progress, Summary, WorkFolder, run_step
from videogym.datasets.task_files import task_of_row
from videogym.env import VideoQAEnv
from videogym.geometry import Segment, segment_iou
from videogym.grammars.longvt import video_name
from videogym.recipes import Recipe, get_recipe
from videogym.spaces import is_encodable
from videogym.state import Task
from videogym.tool_episode import ToolEpisode, ToolReply
from videogym.traces import Trace, TurnTrace, looks_of, to_line, trace_of

_VERSION = 2
_NEAR_S = 0.05  # of a bound that was told, by which a number repeats it
_SPOKEN = re.compile(
    r"\b(?:hint|the note|a note|this note|(?:was|were|been|am) told|told me|reference answer|ground truth|"
    r"given window|provided window)\b",
    re.IGNORECASE,
)
# Not that of "mp4", nor the end of "v3.5".
_NUMBER = re.compile(r"(?<![A-Za-z_\d])(?<!\d\.)(?:(\d+):)?(\d+(?:\.\d+)?)")


@dataclass(frozen=True)
class TraceOptions:
    """How traces are played, and which count.

    Raises:
        ValueError: a value is out of range, or there is no such recipe.
    """

    recipe: str = RECIPE
    min_iou: float = 0.3  # of the last look with the evidence
    hint: bool = True  # whether a note tells of a wide window after a look that missed

    def __post_init__(self) -> None:
        if not 0.0 <= self.min_iou <= 1.0:
            raise ValueError(f"min_iou must lie in [0, 1], got {self.min_iou}")
        get_recipe(self.recipe)


def play_traces(
    work: WorkFolder,
    asker: Asker,
    options: TraceOptions = TraceOptions(),
    prompts: Mapping[str, StepPrompt] | None = None,
    *,
    jobs: int = 1,
    progress: Progress | None = None,
) -> Summary:
    """Have every question played that was kept.

    Args:
        work: whose questions.
        asker: the teacher, and who judges its answers.
        options: how.
        prompts: those of ``teach``, ``hint`` and ``judge`` that are not ours.
        jobs: episodes at once.
        progress: called with (done, total).

    Raises:
        DataError: the questions were not filtered yet, or the folder holds something else.
        VideoChanged: a video is not the one whose scenes were found.
        EndpointError: the endpoint cannot be used.
    """
    stage = _Stage(asker, str(work.video_root), options, prompts or {})
    items = [
        Item(row["place"], (row["key"],), stage.by, task_of_row(row["task"])) for row in work.kept("filter")
    ]
    return run_step(
        work,
        "traces",
        items,
        stage.play,
        jobs=jobs,
        progress=progress,
        cost=asker.cost,
        max_tokens=asker.max_tokens,
    )


class _Stage:
    """Plays one question after another."""

    def __init__(
        self, asker: Asker, video_root: str, options: TraceOptions, prompts: Mapping[str, StepPrompt]
    ) -> None:
        names = ("teach", "hint", "judge")
        self._prompts = {name: prompts.get(name) or step_prompt(name) for name in names}
        self._asker, self._root, self._options = asker, video_root, options
        self._recipe: Recipe = get_recipe(options.recipe)
        self.by = {
            "version": _VERSION,
            "model": asker.model,
            "prompts": {name: prompt.identity for name, prompt in self._prompts.items()},
            "recipe": self._recipe.identity,
            "min_iou": options.min_iou,
            "hint": options.hint,
        }

    def play(self, task: Task) -> Made:
        """The trace of a question, or why it does not count."""
        env = VideoQAEnv([task], self._recipe, video_root=self._root)
        try:
            found = self._played(task, ToolEpisode(env))
        finally:
            env.close()
        if isinstance(found, Dropped):
            return Dropped(found.code, f"{task.question!r}: {found.reason}")
        return found

    def _played(self, task: Task, episode: ToolEpisode) -> Made:
        tools = [json.dumps(tool["function"], ensure_ascii=False) for tool in episode.tools]
        asked = parts_of(episode.begin(task_id=task.task_id))
        messages = [user(text_part(self._prompts["teach"].fill(tools=tools)), *asked)]
        turns: list[TurnTrace] = []
        told: Segment | None = None
        while not episode.state.terminated:
            said = self._asker.ask("traces", messages)
            call = read_call(object_in(said))
            if isinstance(call, Dropped):
                return call
            try:
                reply = episode.call(call.tool, call.arguments, call.thought)
            except ValueError as error:
                return Dropped("malformed", str(error))
            turns.append(_paid(episode))
            more: list[ContentPart] = []
            if told is None and self._options.hint and _missed(task, turns[-1], episode):
                told = wide_window(task, episode.state.video.duration_s)
                note = self._prompts["hint"].fill(start_s=told.start_s, end_s=told.end_s)
                more.append(text_part(note))
            answer = {"role": "assistant", "content": said.text}
            messages += [answer, user(*parts_of(reply), *more)]
        trace = trace_of(episode.state, tuple(turns), correct=True, run="pipeline")
        fault = self._fault(task, trace, told)
        if fault is not None:
            return fault
        return {"trace": json.loads(to_line(trace)), "mended": told is not None}

    def _fault(self, task: Task, trace: Trace, told: Segment | None) -> Dropped | None:
        """Why a trace does not count."""
        turns = [paid.turn for paid in trace.turns]
        if any(turn.fault for turn in turns):
            return Dropped("fault", next(turn.fault for turn in turns if turn.fault))
        refused = next((turn.error for turn in turns if turn.error), None)
        if refused is not None:
            return Dropped("refused_call", f"{refused.code}: {refused.reason}")
        if trace.answer is None:
            return Dropped("no_answer", f"it ended by {trace.ending}")
        if not trace.looks:
            return Dropped("no_look", "it answered without a look")
        ends = (told.start_s, told.end_s) if told is not None else ()
        secret = [end for end in ends if 0.0 < end < trace.video.duration_s]
        name = video_name(task)  # which calls repeat, with whatever numbers are in it
        if (leaked := leak_in([(turn.text or "").replace(name, "") for turn in turns], secret)) is not None:
            return Dropped("leak", leaked)
        iou = max(segment_iou(trace.looks[-1], segment) for segment in task.evidence or ())
        if iou < self._options.min_iou:
            return Dropped("iou", f"the last look has an IoU of {iou:.2f} with the evidence")
        right = is_right(self._asker, self._prompts["judge"], task, trace.answer)
        if isinstance(right, Dropped):
            return right
        if not right:
            return Dropped("wrong_answer", f"{trace.answer!r} is not {task.answer!r}")
        return None


@dataclass(frozen=True)
class TeacherCall:
    """What a teacher does in one turn."""

    thought: str
    tool: str
    arguments: dict[str, Any]


def read_call(found: dict[str, Any] | Dropped) -> TeacherCall | Dropped:
    """The thought and the call of a reply's object."""
    if isinstance(found, Dropped):
        return found
    thought, tool, arguments = text_in(found, "thought"), text_in(found, "tool"), found.get("arguments")
    for text in (thought, tool):
        if isinstance(text, Dropped):
            return text
    if not isinstance(arguments, dict):
        return Dropped("malformed", f"field 'arguments' must be an object, got {shown(arguments)}")
    assert isinstance(thought, str) and isinstance(tool, str)
    if not is_encodable(json.dumps(found, ensure_ascii=False)):
        return Dropped("malformed", f"half a surrogate pair, which is no character, in {shown(found)}")
    return TeacherCall(thought, tool, arguments)


def parts_of(reply: ToolReply) -> list[ContentPart]:
    """What a call brought, as parts of a message."""
    return [text_part(part) if isinstance(part, str) else image_part(part) for part in reply.parts]


def _paid(episode: ToolEpisode) -> TurnTrace:
    info = episode.info
    terms = {
        name: float(value) if info["reward_present"][name] else None
        for name, value in info["reward_terms"].items()
    }
    return TurnTrace(episode.state.turns[-1], episode.rewards[-1], terms)


def _missed(task: Task, paid: TurnTrace, episode: ToolEpisode) -> bool:
    """Whether a turn looked and saw nothing of the evidence, and another turn can mend it."""
    looks = looks_of(paid.turn, episode.state.video.duration_s)
    if not looks or episode.state.terminated:
        return False
    pairs = [(look, segment) for look in looks for segment in task.evidence or ()]
    return all(segment_iou(look, segment) == 0.0 for look, segment in pairs)


def wide_window(task: Task, duration_s: float) -> Segment:
    """A window around the evidence, drawn by the task's id; its bounds tell nothing of the evidence's."""
    rng = random.Random(task.task_id)
    first_s = min(segment.start_s for segment in task.evidence or ())
    last_s = max(segment.end_s for segment in task.evidence or ())
    least = max(4.0, last_s - first_s)
    start_s = max(0.0, first_s - least * rng.uniform(1.0, 3.0))
    end_s = min(duration_s, last_s + least * rng.uniform(1.0, 3.0))
    return Segment(round(start_s, 2), round(end_s, 2))


def leak_in(texts: Sequence[str], secret: Sequence[float]) -> str | None:
    """What of a note the outputs of a trace repeat; None: nothing.

    Args:
        texts: outputs, calls included.
        secret: bounds that only the note tells, seconds.

    >>> leak_in(["It should be near 1:57."], [117.03]), leak_in(["It should be near 1:58."], [117.03])
    ('it tells 1:57, which only the note does', None)
    """
    for text in texts:
        if (spoken := _SPOKEN.search(text)) is not None:
            return f"it speaks of {spoken[0]!r}"
        for found in _NUMBER.finditer(text):
            value = 60.0 * float(found[1] or 0) + float(found[2])
            if any(abs(value - end) < _NEAR_S for end in secret):
                return f"it tells {found[0]}, which only the note does"
    return None
