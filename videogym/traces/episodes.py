"""What a stored episode came to, in the words of `videogym.evaluate`."""

from __future__ import annotations

from videogym.evaluate import Episode, hits, task_digest, union_iou
from videogym.traces.trace import Trace


def episode_from_trace(trace: Trace) -> Episode:
    """What a stored episode came to, as `videogym.evaluate` says it."""
    reward, terms = 0.0, dict[str, float]()
    for paid in trace.turns:
        reward += paid.reward
        for name, value in paid.terms.items():
            if value is not None:
                terms[name] = terms.get(name, 0.0) + value
    return Episode(
        task_id=trace.task.task_id,
        correct=trace.correct,
        answered=trace.answer is not None,
        ending=trace.ending,
        reward=reward,
        terms=terms,
        turns=len(trace.turns),
        frames=trace.frames_shown,
        invalid_turns=sum(not paid.turn.valid for paid in trace.turns),
        fault_turns=sum(bool(paid.turn.fault) for paid in trace.turns),
        tiou=union_iou(trace.looks, trace.task.evidence) if trace.task.evidence else None,
        hit=hits(trace.task, trace.clips),
        video=trace.video.fingerprint,
        task=task_digest(trace.task),
        metadata=trace.task.metadata,
        cost=trace.cost,
    )
