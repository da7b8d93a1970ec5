"""Run any callable policy over tasks and say how good it is and how sure that is.

Knows environments and numbers only; nothing here imports a learning library. A task whose video
cannot be used is skipped and counted, never scored.
"""

from __future__ import annotations

import functools
import hashlib
import inspect
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import gymnasium

from videogym.cost import Cost, Spread, Stopwatch, cost_table, quantities, spreads
from videogym.datasets import load_tasks, require_unseen
from videogym.geometry import WHOLE_FRAME, region_iou, union_iou
from videogym.grouping import Groups, average, group, require_known, share, table
from videogym.intervals import Estimate, proportion
from videogym.intervals import mean as mean
from videogym.metadata import Metadata
from videogym.rewards import answered_right, finite, looked_segments
from videogym.state import Clip, State, Task
from videogym.video import VideoError

Policy = Callable[..., Any]
_NAMED = 3  # tasks that an error names
REGION_IOU = 0.5  # from which a box counts as the other, as in object detection since PASCAL VOC


class NothingScored(ValueError):
    """No episode of an evaluation says anything: videos failed in all, or a judge abstained from all."""


@dataclass(frozen=True)
class Episode:
    """What one episode came to."""

    task_id: str
    correct: bool | None  # None: the recipe's judge abstained
    answered: bool
    ending: str
    reward: float
    terms: dict[str, float]  # sums over the episode; terms that were never present are missing
    turns: int
    frames: int
    invalid_turns: int
    fault_turns: int
    tiou: float | None  # union of looks with union of evidence; None without evidence
    hit: bool | None  # whether frames of all evidence were shown, see `hits`; None without evidence
    video: str  # fingerprint of what was shown
    task: str  # digest of what was asked and what is right, see `task_digest`
    metadata: Mapping[str, Any] = Metadata()  # of the task
    cost: Cost | None = field(default=None, compare=False)  # None: not measured


@dataclass(frozen=True)
class Report:
    """Metrics of a policy over a set of episodes. Intervals are clustered by video, see `intervals`."""

    accuracy: Estimate
    hit_rate: Estimate | None  # share of the episodes that were shown all evidence, see `hits`
    tiou: Estimate | None
    reward: Estimate
    turns: Estimate
    frames: Estimate
    invalid_rate: Estimate  # share of turns that executed nothing
    terms: dict[str, Estimate]
    recipe: str
    bad_videos: dict[str, str]  # task id -> cause, for tasks that could not be shown
    faults: int  # episodes with a turn whose frames could not be decoded; left out of all metrics
    abstained: int  # episodes whose answer the judge did not judge; left out of accuracy and reward
    episodes: tuple[Episode, ...] = field(repr=False)
    groups: dict[str, Groups] = field(default_factory=dict)  # by name of a field of metadata
    cost: dict[str, Spread] = field(default_factory=dict, compare=False)  # see `videogym.cost.spreads`

    def __str__(self) -> str:
        """A table of the metrics, and what was left out of them."""
        named = {
            "accuracy": self.accuracy,
            "hit rate": self.hit_rate,
            "temporal IoU": self.tiou,
            "reward": self.reward,
            **{f"  {name}": estimate for name, estimate in self.terms.items()},
            "turns": self.turns,
            "frames": self.frames,
            "turns refused": self.invalid_rate,
        }
        left_out = {
            "episodes left out: frames of a look could not be decoded": self.faults,
            "episodes left out of accuracy and reward: the judge abstained": self.abstained,
            "tasks left out: their videos cannot be used": len(self.bad_videos),
        }
        width = max(14, *map(len, named)) + 2
        return "\n".join(
            [
                f"{len(self.episodes)} episodes of {self.recipe}, 95 % intervals",
                *(f"  {name:<{width}}{value or 'not annotated'}" for name, value in named.items()),
                *(f"{count} {what}" for what, count in left_out.items() if count),
                *(line for line in ("", *cost_table(self.cost)) if self.cost),
                *(line for groups in self.groups.values() for line in ("", *table(groups))),
            ]
        )


def evaluate(
    policy: Policy,
    env: gymnasium.Env[Any, Any],
    *,
    task_ids: Sequence[str] | None = None,
    episodes: int | None = None,
    seed: int = 0,
    trained_on: str | Iterable[Task] | None = None,
    progress: Callable[[int, int], None] | None = None,
    by: str | Sequence[str] = (),
) -> Report:
    """Play episodes and report.

    An answer is right as `videogym.rewards.answered_right` says: where the recipe's ``answer`` term paid
    in full.

    Args:
        policy: called as ``policy(observation, info)`` or ``policy(observation, info, env)``, where
            ``env`` is the unwrapped environment, if it has a third parameter that is required or called
            ``env``; returns an action of ``env``. A `VideoError` that it raises is a fault of the
            video, not of the policy, whatever the turn before it brought.
        env: a videogym environment, wrapped or not.
        task_ids: the tasks, one episode each; by default the environment's first ``episodes`` tasks.
        episodes: how many tasks; all of them by default.
        seed: seeds the environment once, at the first episode.
        trained_on: tasks that the policy learned from, or their source for `load_tasks`; it is not
            evaluated on their videos, whatever is asked about them.
        progress: called with (done, total) after every episode.
        by: names of fields of `Task.metadata` by which metrics are grouped too.

    Raises:
        NothingScored: there is nothing to evaluate, every video was bad, or no answer was judged.
        ValueError: no task has metadata of such a name.
        RewardError: a reward is not a finite number.
        TrainedOnError: tasks ask about videos that were trained on; the message names them, and nothing
            is played.
    """
    inner: Any = env.unwrapped
    if task_ids is None:
        total = len(inner.tasks) if episodes is None else min(episodes, len(inner.tasks))
        task_ids = [inner.tasks[i].task_id for i in range(total)]
    if trained_on is not None:
        seen = load_tasks(trained_on) if isinstance(trained_on, str) else trained_on
        require_unseen([inner.tasks.by_id(task_id) for task_id in task_ids], seen)
    names = [by] if isinstance(by, str) else list(dict.fromkeys(by))
    told = {task_id: inner.tasks.by_id(task_id).metadata for task_id in task_ids} if names else {}
    require_known(names, told.values())
    played: list[Episode] = []
    bad: dict[str, str] = {}
    call = with_env(policy, inner)
    for done, task_id in enumerate(task_ids, start=1):
        try:
            watch = Stopwatch()
            start = env.reset(seed=seed if done == 1 else None, options={"task_id": task_id})
            played.append(_play(call, env, *start, watch))
        except VideoError as error:
            bad[task_id] = str(error)
        if progress is not None:
            progress(done, len(task_ids))
    sound = [episode for episode in played if not episode.fault_turns]
    if not sound:
        some = "; ".join(f"{task_id}: {cause}" for task_id, cause in list(bad.items())[:_NAMED])
        raise NothingScored(
            f"no episode could be scored: {len(bad)} bad videos, {len(played)} faults"
            + (f", such as {some}" if some else "")
        )
    if all(episode.correct is None for episode in sound):
        raise NothingScored(
            f"no episode could be scored: the judge abstained from all {len(sound)} answers"
        )
    lost = [told[task_id] for task_id in bad if names]
    lost += [episode.metadata for episode in played if episode.fault_turns]
    groups = {name: group(sound, name, lost) for name in names}
    return _report(sound, inner.recipe.identity, bad, len(played) - len(sound), groups)


def with_env(policy: Policy, env: Any) -> Callable[[Any, dict[str, Any]], Any]:
    """The policy as ``policy(observation, info)``, with the environment handed to one that takes it.

    It is handed to a third positional parameter without a default, and to any behind the first two that
    is called ``env``; an option with a default of its own keeps that.
    """
    parameters = inspect.signature(policy).parameters.values()
    further = [p for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)][2:]
    if further and (further[0].default is inspect.Parameter.empty or further[0].name == "env"):
        return lambda observation, info: policy(observation, info, env)
    further = [p for p in further if p.kind is not p.POSITIONAL_ONLY]
    further += [p for p in parameters if p.kind is p.KEYWORD_ONLY]
    bound = policy.keywords if isinstance(policy, functools.partial) else {}
    if any(p.name == "env" for p in further) and "env" not in bound:
        return lambda observation, info: policy(observation, info, env=env)
    return policy


def _play(
    call: Callable[[Any, dict[str, Any]], Any],
    env: gymnasium.Env[Any, Any],
    observation: Any,
    info: dict[str, Any],
    watch: Stopwatch,
) -> Episode:
    terms: dict[str, float] = {}
    reward, over = 0.0, False
    inner: Any = env.unwrapped
    while not over:
        watch.lap("environment")
        try:
            action = call(observation, info)
        except VideoError as error:
            # The policy resolved references itself. Without a turn it is the skim: a bad video.
            if not inner.state.turns:
                raise
            inner.report_fault(str(error))
            break  # an episode with a fault is not scored, whatever comes
        watch.lap("model")
        observation, paid, terminated, truncated, info = env.step(action)
        reward += finite(paid, f"the reward of task {info['task_id']!r}")  # wrappers may have changed it
        for name, value in info["reward_terms"].items():
            if info["reward_present"][name]:
                terms[name] = terms.get(name, 0.0) + float(value)
        over = bool(terminated or truncated)
    watch.lap("environment")
    # Paid at the last turn, so the sum is the payment.
    correct = answered_right(inner.recipe.terms, terms.get("answer"), inner.state)
    return _episode(inner.state, correct, reward, terms, watch.cost)


def _episode(
    state: State, correct: bool | None, reward: float, terms: dict[str, float], cost: Cost | None
) -> Episode:
    evidence = state.task.evidence
    return Episode(
        task_id=state.task.task_id,
        correct=correct,
        answered=state.answer is not None,
        ending=state.ending,
        reward=reward,
        terms=terms,
        turns=len(state.turns),
        frames=state.frames_shown,
        invalid_turns=sum(not turn.valid for turn in state.turns),
        fault_turns=sum(bool(turn.fault) for turn in state.turns),
        tiou=union_iou(looked_segments(state), evidence) if evidence else None,
        hit=hits(state.task, state.clips),
        video=state.video.fingerprint,
        task=task_digest(state.task),
        metadata=state.task.metadata,
        cost=cost,
    )


def task_digest(task: Task) -> str:
    """Twelve hexadecimal digits that change with what is asked and what is right.

    A task's id, its source and the path of its video do not count: a copy elsewhere is the same task.
    """
    evidence = task.evidence and [(float(s.start_s), float(s.end_s)) for s in task.evidence]
    region = task.evidence_region and [float(side) for side in task.evidence_region.as_tuple()]
    asked = (task.question, task.kind, task.options, task.answer, evidence, region)
    return hashlib.sha256(json.dumps(asked).encode()).hexdigest()[:12]


def hits(task: Task, clips: Sequence[Clip]) -> bool | None:
    """Whether frames of all evidence were shown.

    In every evidence segment lies a frame. Of a task with an ``evidence_region`` only frames count that
    show this region: whose own has an IoU of at least `REGION_IOU` with it.

    Args:
        task: what is asked.
        clips: all that was shown, the skim included.

    Returns:
        None without evidence.
    """
    place = task.evidence_region
    times_s = [
        time_s
        for clip in clips
        if place is None or region_iou(clip.region or WHOLE_FRAME, place) >= REGION_IOU
        for time_s in clip.times_s
    ]
    if not task.evidence:
        return None
    return all(any(segment.contains(time_s) for time_s in times_s) for segment in task.evidence)


def _report(
    episodes: list[Episode], recipe: str, bad: dict[str, str], faults: int, groups: dict[str, Groups]
) -> Report:
    turns = sum(e.turns for e in episodes)
    judged = [e for e in episodes if e.correct is not None]
    names = sorted({name for e in episodes for name in e.terms})
    return Report(
        accuracy=_known(share(judged, lambda e: e.correct)),
        hit_rate=share(episodes, lambda e: e.hit),
        tiou=average(episodes, lambda e: e.tiou),
        reward=_known(average(judged, lambda e: e.reward)),
        turns=_known(average(episodes, lambda e: e.turns)),
        frames=_known(average(episodes, lambda e: e.frames)),
        invalid_rate=proportion(sum(e.invalid_turns for e in episodes), turns),
        terms={name: _term(episodes, name) for name in names},
        recipe=recipe,
        bad_videos=bad,
        faults=faults,
        abstained=len(episodes) - len(judged),
        episodes=tuple(episodes),
        groups=groups,
        cost=spreads(quantities(e.cost, e.frames, e.turns) for e in episodes),
    )


def _term(episodes: list[Episode], name: str) -> Estimate:
    return _known(average(episodes, lambda e: e.terms.get(name)))


def _known(estimate: Estimate | None) -> Estimate:
    if estimate is None:
        raise ValueError("no episode has this metric")
    return estimate
