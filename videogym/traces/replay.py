"""Episodes of training, as the traces that they would have been.

A training record keeps what a policy wrote and was paid, not what was asked and shown. All that follows
again from its texts: the environment is pure, so an episode that is played again is the same episode. What
a turn came to must be what the record says; payments are the record's own.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from videogym.env import VideoQAEnv
from videogym.grammars import get_grammar
from videogym.recipes import Recipe, get_recipe
from videogym.state import State
from videogym.traces.trace import Trace, TurnTrace, trace_of

_FAULT = "fault: "  # what the reason for cutting such an episode begins with
_JUDGE = "judge"  # and of one that ended with an answer that the judge did not judge


class ReplayError(ValueError):
    """A stored episode is of another recipe, or does not play as it did. The message names it."""


class StoredTurn(Protocol):
    """What a turn left."""

    @property
    def text(self) -> str:
        """What the policy wrote."""

    @property
    def error(self) -> str:
        """Code of the environment's first refusal, or ""."""

    @property
    def looked(self) -> bool:
        """Whether frames were brought."""

    @property
    def reward(self) -> float:
        """Paid by the environment."""

    @property
    def terms(self) -> Mapping[str, float | None]:
        """Reward terms, None where absent."""


class StoredEpisode(Protocol):
    """What an episode left."""

    @property
    def recipe(self) -> str:
        """Identity."""

    @property
    def task_id(self) -> str:
        """What was asked."""

    @property
    def group(self) -> str:
        """Episodes of one group began in the same state."""

    @property
    def sample_index(self) -> int:
        """Of the episode in its group."""

    @property
    def first_times_s(self) -> Sequence[float]:
        """Times of the frames shown with the question, seconds; a run may draw their number.

        The last may stand there twice, where it filled a pair of a video.
        """

    @property
    def played(self) -> Sequence[StoredTurn]:
        """Turns with an output."""

    @property
    def ending(self) -> str:
        """Why the recipe's rules ended it, or ""."""

    @property
    def abort_reason(self) -> str:
        """Why it was cut from outside, or ""."""

    @property
    def success(self) -> bool | None:
        """Whether the answer was right; None where nobody judged it."""


def replayed(record: StoredEpisode, env: VideoQAEnv, run: str) -> Trace:
    """The trace of an episode, by playing it again.

    Args:
        record: of an episode that has ended or was cut.
        env: has the record's recipe and task.
        run: name of the run.

    Raises:
        ReplayError: the episode is of another recipe, or does not play as it did.
        ValueError: the environment has no such task.
        VideoError: the task's video cannot be used.
    """
    if record.recipe != env.recipe.identity:
        raise ReplayError(f"{_name(record)} is of recipe {record.recipe}, not {env.recipe.identity}")
    grammar = get_grammar(env.recipe.grammar)
    _begin(record, env)
    turns = []
    for number, turn in enumerate(record.played, start=1):
        if record.abort_reason == "context" and not turn.text and not turn.error:
            break  # its output had no room to end, and was not played
        if env.state.terminated:
            raise ReplayError(f"{_name(record)} does not play as it did: it is over before turn {number}")
        env.step(grammar.parse(turn.text, env.state))
        if turn.error == "fault" and env.state.turns[-1].clips:
            env.report_fault(record.abort_reason.removeprefix(_FAULT))
        played = env.state.turns[-1]
        error = played.error.code if played.error else ""
        for what, now, then in (("error", error, turn.error), ("frames", played.looked, turn.looked)):
            if now != then:
                raise ReplayError(
                    f"{_name(record)} does not play as it did: {what} of turn {number} {now!r}, in the "
                    f"record {then!r}; are the tasks and the code those of the run?"
                )
        turns.append(TurnTrace(played, turn.reward, dict(turn.terms)))
    if record.abort_reason.startswith(_JUDGE):
        return trace_of(env.state, tuple(turns), correct=None, run=run)
    if env.state.ending != record.ending:
        raise ReplayError(
            f"{_name(record)} ends by {env.state.ending!r}, in the record by {record.ending!r}"
        )
    # A cut episode has no answer, so it is not right.
    correct = record.success if record.ending else False
    return trace_of(env.state, tuple(turns), correct=correct, run=run, cut=record.abort_reason)


def _begin(record: StoredEpisode, env: VideoQAEnv) -> None:
    """The first state of the episode, with the first frames that it had.

    Raises:
        ReplayError: no number of first frames shows these.
    """
    options: dict[str, Any] = {"task_id": record.task_id}
    env.reset(options=options)
    if not record.played:  # it was cut before anything was shown
        return
    shown = tuple(record.first_times_s)
    # A run may have drawn their number; a skim of a short video repeats frames, so that all of them count.
    for drawn in (None, len(shown), len(shown) - 1):
        if drawn is not None:
            try:
                env.recipe.rules.skimming(drawn)
            except ValueError:  # no run can have drawn so many
                continue
            env.reset(options=options | {"skim_frames": drawn})
        first = env.state.skim.times_s
        if shown == first or (first and shown == (*first, first[-1])):
            return
    raise ReplayError(
        f"{_name(record)} does not begin as it did: no skim of the video shows its {len(shown)} frames"
    )


def _name(record: StoredEpisode) -> str:
    return f"episode {record.group}/{record.sample_index} of task {record.task_id!r}"


def recipe_of(trace: Trace) -> Recipe:
    """The named recipe that an episode was played under.

    Raises:
        ValueError: it is no named one, or another one than today's of that name.
    """
    recipe = get_recipe(trace.recipe.partition("@")[0])
    if recipe.identity != trace.recipe:
        raise ValueError(f"a trace of {trace.recipe} cannot be told as one of {recipe.identity}")
    return recipe


def state_of(trace: Trace, recipe: Recipe) -> State:
    """The last state of an episode; it must have no pool of frames.

    Raises:
        ValueError: the recipe has a pool, which a trace does not tell.
    """
    if recipe.rules.pool_frames:
        raise ValueError(f"traces of {recipe.name} do not tell its pool of frames")
    turns = tuple(paid.turn for paid in trace.turns)
    return State(trace.task, trace.video, recipe.rules, trace.recipe, (), trace.skim, turns, trace.ending)
