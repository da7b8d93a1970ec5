"""Frozen records of an episode: the task, the rules, what was shown and what was done.

Everything here is data. A `State` holds no decoder and no random generator, so it can be pickled,
compared, branched and replayed; a step makes a new `State` that shares all of the old one. Seconds
are the only unit of time and regions are fractions of the full frame. Frame indices exist only in
`videogym.video` and in the grammars that speak them.
"""

from __future__ import annotations

import math
import re
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, ClassVar, Literal

import gymnasium
import numpy as np
from numpy.typing import NDArray

from videogym.geometry import Region, Segment
from videogym.metadata import Metadata, MetadataError
from videogym.rules import Rules as Rules  # named here by all that speaks of states
from videogym.subtitles import Subtitle
from videogym.video.types import VideoMeta

TaskKind = Literal["choice", "open", "numeric"]
Ending = Literal["", "answered", "turn_limit", "call_limit", "frame_limit", "malformed"]
# Times of up to so many moments of the episode's video that fit a text, seconds, the best first.
Search = Callable[[str, int], tuple[float, ...]]


# "A. red", "A) red", "A: red" and "(A) red", and the same with small letters.
_LETTERED = re.compile(r"\s*(?:\(([A-Za-z])\)|([A-Za-z])[.):])\s+(\S.*)", re.DOTALL)
_LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"


# Hyphens, dashes and minus signs that people and models write before a number, and the other pluses.
SIGNS = str.maketrans(dict.fromkeys("‐‑‒–—―−﹘﹣－", "-") | dict.fromkeys("﹢＋", "+"))


def is_number(text: str) -> bool:
    """Whether Python reads a text as a finite number once any dash is a minus; a numeric answer is one.

    >>> is_number("–3.5"), is_number("1,200"), is_number("three"), is_number("nan")
    (True, False, False, False)
    """
    try:
        return math.isfinite(float(text.translate(SIGNS)))
    except ValueError:
        return False


@dataclass(frozen=True)
class Task:
    """One question about one video.

    The answer and the evidence are the ground truth: they are left out of ``repr`` and no
    observation is made from them.

    Options are shown with letters. If all of them begin with their own, in order, these are cut off and a
    warning says so.

    Raises:
        ValueError: the fields contradict each other; the message names the task and the field.
        MetadataError: ``metadata`` is no JSON; a `ValueError` too.
    """

    task_id: str
    video: str  # path below video_root, absolute path, or an address
    question: str
    kind: TaskKind
    options: tuple[str, ...] = ()  # option texts without letters; () unless kind is "choice"
    answer: str = field(default="", repr=False)  # the letter for "choice", else the text or number
    evidence: tuple[Segment, ...] | None = field(default=None, repr=False)  # None: not annotated
    source: str = ""  # data set or family the task comes from
    # Where in the frames of the evidence a detail lies that only a crop of it shows; None: nowhere.
    evidence_region: Region | None = field(default=None, repr=False)
    # Whatever else is told of it, any JSON object: duration class, domain, question type. It groups metrics
    # and is in no observation. It may repeat the truth.
    metadata: Mapping[str, Any] = field(default=Metadata(), repr=False)
    # What is said in the video, by start. Text policies read the lines that cover the frames they see; they
    # are in no structured observation, trace or task file.
    subtitles: tuple[Subtitle, ...] = field(default=(), repr=False)

    def __post_init__(self) -> None:
        if not isinstance(self.metadata, Metadata):
            try:
                object.__setattr__(self, "metadata", Metadata(self.metadata))
            except MetadataError as error:
                raise MetadataError(f"task {self.task_id!r}: {error}") from error
        self._require_texts()
        if not self.task_id or not self.video or not self.question:
            raise ValueError(f"task {self.task_id!r}: task_id, video and question must not be empty")
        if self.evidence_region is not None and not self.evidence:
            raise ValueError(f"task {self.task_id!r}: evidence_region needs evidence segments")
        if self.kind == "choice":
            self._cut_letters()
            if not 2 <= len(self.options) <= 26:
                raise ValueError(
                    f"task {self.task_id!r}: a choice needs 2 to 26 options, got {len(self.options)}"
                )
            if self.answer not in self.letters:
                raise ValueError(f"task {self.task_id!r}: answer must be one of {', '.join(self.letters)}")
        elif self.kind in ("open", "numeric"):
            if self.options:
                raise ValueError(f"task {self.task_id!r}: options are only for kind 'choice'")
            if self.kind == "numeric" and not is_number(self.answer):
                raise ValueError(
                    f"task {self.task_id!r}: answer must be a finite number written as text, "
                    f"got {self.answer!r:.80}"
                )
        else:
            raise ValueError(
                f"task {self.task_id!r}: kind must be 'choice', 'open' or 'numeric', got {self.kind!r}"
            )

    def _require_texts(self) -> None:
        texts = {name: getattr(self, name) for name in ("task_id", "video", "question", "answer", "source")}
        texts |= {f"options[{i}]": text for i, text in enumerate(self.options)}
        for name, text in texts.items():
            if not isinstance(text, str):
                raise ValueError(f"task {self.task_id!r}: {name} must be text, got {text!r:.80}")

    def _cut_letters(self) -> None:
        matches = [_LETTERED.fullmatch(text) for text in self.options]
        found = [match and (match[1] or match[2]) for match in matches]
        if not found or found not in (list(self.letters), [letter.lower() for letter in self.letters]):
            return
        # One text for all tasks, so that Python shows it once.
        warnings.warn(
            'options that begin with their letters ("A. red", "B. blue") lose these: letters are added '
            "where options are shown",
            stacklevel=4,
        )
        object.__setattr__(self, "options", tuple(match[3] for match in matches if match))
        self._cut_letters()

    @property
    def letters(self) -> tuple[str, ...]:
        """Option letters in order, ``("A", "B", ...)``; empty for open tasks."""
        return tuple(_LETTERS[: len(self.options)])

    @property
    def labelled_options(self) -> tuple[str, ...]:
        """Options as they are shown, ``("A. red", "B. blue", ...)``."""
        return tuple(f"{letter}. {text}" for letter, text in zip(self.letters, self.options, strict=True))


@dataclass(frozen=True, slots=True)
class Clip:
    """Frames of the episode's video, by reference: true timestamps and an optional region."""

    times_s: tuple[float, ...]  # presentation times of real frames, ascending, repeats allowed
    region: Region | None = None
    scale: float | None = (
        None  # of each side of the frame or region, see `videogym.sizes`; None: the rules'
    )
    note: str = ""  # what of the request a bound has taken, for the policy; "" if nothing


# What another policy says of a clip, see `videogym.responding`.
Describe = Callable[[Clip], str]


class Action:
    """One thing a policy can do. A kind of action is a frozen dataclass below this class.

    Its fields are what the policy asked for, unchecked. Whatever is done with an action asks the class
    itself: the transition (`refusal`, `clip`; `located` of one that searches), structured spaces (`spaces`,
    `from_structured`), tool calls (`parameters`, `from_arguments`, `arguments`), and all that shows an
    episode to a person (`label`, `segment`). So a kind that is defined in any file works everywhere once it
    is imported and a recipe's `Rules.actions` names it. `videogym.actions` holds ours; kinds that show
    frames extend `videogym.actions.Look`.

    Raises:
        ValueError: at definition, another class already has this kind.
    """

    __slots__ = ()
    kind: ClassVar[str]  # its name in rules, tool calls and traces
    purpose: ClassVar[str] = ""  # what it does, in a sentence, for the schema of the tool
    optional: ClassVar[frozenset[str]] = frozenset()  # arguments that a tool call may leave out
    searches: ClassVar[bool] = False  # whether it needs the recipe's search index, see `located`

    def __init_subclass__(cls, **kwargs: Any) -> None:
        """Note the kind, so that rules and traces can name it."""
        super().__init_subclass__(**kwargs)
        if "kind" not in cls.__dict__:
            return
        known = _KINDS.get(cls.kind)
        # A dataclass with slots is made twice, and a module can be loaded again.
        if known is not None and (known.__module__, known.__name__) != (cls.__module__, cls.__name__):
            raise ValueError(
                f"the action kind {cls.kind!r} is taken by {known.__module__}.{known.__name__}"
            )
        _KINDS[cls.kind] = cls

    @property
    def answer_text(self) -> str | None:
        """The answer that this action gives and ends the episode with; None: it gives none."""
        return None

    def refusal(self, state: State, turn: Turn) -> Invalid | None:
        """Why it may not be executed after the results of ``turn`` so far; None: it may."""
        return None

    def clip(self, state: State, turn: Turn, pts_s: NDArray[np.float64]) -> Clip | Invalid | None:
        """Frames that it shows, or why there are none; None: it is no look.

        Args:
            state: before the turn.
            turn: results of the turn so far; parallel looks share one budget.
            pts_s: (num_frames,) presentation times of the video, seconds.
        """
        return None

    def located(self, rules: Rules, search: Search) -> Action:
        """The same action, with what a search found; asked of kinds that search, once they may be executed.

        What was found is kept in the action, so that an episode is told and replayed without the index.
        """
        return self

    def label(self) -> str:
        """What was asked for, in a few words for a person; "" if the kind says all."""
        return ""

    def segment(self, duration_s: float) -> Segment | None:
        """The seconds that it looks at, as far as they lie in a video of this length; None: none."""
        return None

    def arguments(self) -> dict[str, Any]:
        """Arguments of the tool call that asks for it, as JSON values.

        Raises:
            ValueError: no tool call asks for it.
        """
        raise ValueError(f"no words for {self}: it is not an action of a policy")

    @classmethod
    def parameters(cls, rules: Rules) -> dict[str, Any]:
        """Arguments of its tool call and their JSON schemas; those not in `optional` are required."""
        return {}

    @classmethod
    def from_arguments(cls, arguments: Mapping[str, Any], rules: Rules) -> Action:
        """The action of a tool call with these arguments, or `Invalid` for values of a wrong type.

        Args:
            arguments: JSON values; unknown and missing ones have been refused.
            rules: of the episode.
        """
        return cls()

    @classmethod
    def spaces(cls, rules: Rules) -> dict[str, gymnasium.Space[Any]]:
        """Keys of the structured action space that it reads, beside ``kind``."""
        return {}

    @classmethod
    def from_structured(cls, values: Mapping[str, Any], state: State) -> Action:
        """The action of a structured one.

        Raises:
            KeyError: a key of `spaces` is missing.
        """
        return cls()


_KINDS: dict[str, type[Action]] = {}


def action_kinds() -> Mapping[str, type[Action]]:
    """All kinds of action that have been imported, by name."""
    return MappingProxyType(_KINDS)


@dataclass(frozen=True, slots=True)
class Invalid(Action):
    """An output or action that changes nothing but spends the turn; the policy is told why."""

    kind: ClassVar[str] = "invalid"

    code: str  # short and stable, e.g. "format", "range", "budget"
    reason: str  # a sentence the policy can act on


@dataclass(frozen=True, slots=True)
class Move:
    """One policy output: the actions a grammar read in it, and the text it came from.

    A structured action is a move without text. Several actions in one move are parallel tool calls.
    """

    actions: tuple[Action, ...]
    text: str | None = None  # raw text, unchanged
    well_formed: bool = True  # the text obeys its grammar, whatever the values in it

    def __post_init__(self) -> None:
        if not self.actions:
            raise ValueError("a move needs at least one action; use Invalid for an unreadable output")


@dataclass(frozen=True, slots=True)
class Result:
    """What one action of a turn came to: a clip, an answer, or why not."""

    action: Action
    clip: Clip | None = None  # only for an executed look
    error: Invalid | None = None
    reply: str | None = None  # what another policy said of the clip, which the policy reads in its place

    @property
    def shown(self) -> Clip | None:
        """The clip, where the policy sees its frames."""
        return self.clip if self.reply is None else None


@dataclass(frozen=True, slots=True)
class Turn:
    """One ``env.step``: what the policy put out and what came of it."""

    results: tuple[Result, ...]
    text: str | None
    well_formed: bool
    fault: str = ""  # why the frames could not be shown; such a turn is kept out of any loss
    verifier_answer: str | None = None  # in the last turn: what the verifier says of the retrieved frames

    @property
    def clips(self) -> tuple[Clip, ...]:
        """Clips whose frames are shown, in order."""
        return tuple(r.shown for r in self.results if r.shown is not None)

    @property
    def looked(self) -> bool:
        """Whether a look was executed, answered by frames or by a text."""
        return any(r.clip is not None for r in self.results)

    @property
    def replies(self) -> tuple[str, ...]:
        """What another policy said of the looks, in order."""
        return tuple(r.reply for r in self.results if r.reply is not None)

    @property
    def error(self) -> Invalid | None:
        """The first error, if any action failed."""
        return next((r.error for r in self.results if r.error is not None), None)

    @property
    def valid(self) -> bool:
        """Whether at least one action was executed."""
        return any(r.error is None for r in self.results)

    @property
    def calls(self) -> int:
        """Looks that a well-formed output asked for, whatever came of them."""
        return sum(r.action.answer_text is None for r in self.results) if self.well_formed else 0

    @property
    def answer(self) -> str | None:
        """Text of the accepted answer, if this turn gave one."""
        given = (result.action.answer_text for result in self.results if result.error is None)
        return next((text for text in given if text is not None), None)


def told_bounds(rules: Rules, turn: Turn) -> str:
    """What bounds took of a turn's looks, if the rules tell that; else ""."""
    notes = (result.clip.note for result in turn.results if result.clip is not None)
    return " ".join(note for note in notes if note) if rules.tell_bound else ""


@dataclass(frozen=True)
class State:
    """Everything an episode is, at one point in time.

    Picklable and immutable; two states of one episode share all but the last turn.
    """

    task: Task
    video: VideoMeta
    rules: Rules
    recipe_id: str  # Recipe.identity of the recipe that made it
    pool_s: tuple[float, ...]  # candidate timestamps, strictly ascending; () without a pool
    skim: Clip
    turns: tuple[Turn, ...] = ()
    ending: Ending = ""  # why the recipe's rules ended the episode; "" while it runs

    @property
    def terminated(self) -> bool:
        """Whether the recipe's rules ended the episode."""
        return self.ending != ""

    @property
    def answer(self) -> str | None:
        """The accepted answer, or None."""
        return self.turns[-1].answer if self.turns else None

    @property
    def clips(self) -> tuple[Clip, ...]:
        """All clips shown so far, the skim first."""
        return (self.skim, *(clip for turn in self.turns for clip in turn.clips))

    @property
    def frames_shown(self) -> int:
        """Frames shown so far, the skim included; a frame shown twice counts twice."""
        return sum(len(clip.times_s) for clip in self.clips)

    @property
    def frames_left(self) -> int | None:
        """Frames the budget still allows; None without a budget."""
        budget = self.rules.frame_budget
        return None if budget is None else max(0, budget - self.frames_shown)

    @property
    def calls_made(self) -> int:
        """Looks asked for so far, executed or refused; those beyond a turn's limit do not count."""
        return sum(min(turn.calls, self.rules.max_calls_per_turn) for turn in self.turns)

    @property
    def turns_left(self) -> int:
        """Turns the rules still allow."""
        return max(0, self.rules.max_turns - len(self.turns))
