"""Tasks with their answers and evidence, one after the other, for a person to accept or reject.

Nothing is played: the first frames of an episode are shown and those of the evidence, and the ground truth
beside them.
"""

from __future__ import annotations

from typing import Any

import gymnasium

from videogym.data.verdicts import Verdicts
from videogym.play.game import Game, Refused, Stale
from videogym.rendering import evidence_times
from videogym.state import Action, Clip, State, Task


class Review(Game):
    """Tasks of an environment that have no verdict yet, in their order.

    Args:
        env: a videogym environment.
        verdicts: to which what is said is added.
        first: id of the task to begin with; None: the first without a verdict.

    Raises:
        ValueError: the environment is none of ours, or there is no such task.
        VideoError: no video can be used.
    """

    def __init__(self, env: gymnasium.Env[Any, Any], verdicts: Verdicts, first: str | None = None) -> None:
        self._verdicts = verdicts
        super().__init__(env, first)

    def act(self, episode: int, turn: int, action: Action, thought: str = "") -> None:
        """Nothing is played here.

        Raises:
            Refused: always.
        """
        raise Refused("This is a review: accept the question or reject it.")

    def decide(self, episode: int, accepted: bool) -> None:
        """Say what becomes of the task that is shown, and go on to the next.

        Args:
            episode: number of the one that is shown, as `view` told it.
            accepted: or rejected.

        Raises:
            Stale: another one is shown.
            OSError: the verdict cannot be written; then nothing is gone on to.
            VideoError: no other task has a video that can be used.
        """
        with self._lock:
            if episode != self._episode:
                raise Stale("another question is shown")
            self._verdicts.add(self._task, accepted)
            self._begin_next()

    def view(self) -> dict[str, Any]:
        """The task in plain values, ready for JSON."""
        with self._lock:
            told = super().view()
            tasks = list(self._inner.tasks)
            said = [self._verdicts.of(task) for task in tasks]
            told["clips"] += [
                {
                    "turn": 1,
                    "times_s": clip.times_s,
                    "region": None,
                    "size": told["clips"][0]["size"],
                    "pictures": len(clip.times_s),
                }
                for clip in self._opening[1:]
            ]
            told["over"], told["outcome"] = True, _truth(self._task)
            told["review"] = {
                "verdict": said[self._position],
                "accepted": said.count(True),
                "rejected": said.count(False),
                "left": said.count(None),
            }
            return told

    @property
    def _task(self) -> Task:
        return self._inner.tasks[self._position]

    def _ahead(self) -> list[int]:
        """Tasks without a verdict come first."""
        tasks = self._inner.tasks
        return sorted(super()._ahead(), key=lambda place: self._verdicts.of(tasks[place]) is not None)

    def _opened(self, state: State) -> list[Clip]:
        pts_s = self._inner.store.open(state.task.video).pts_s
        evidence = [Clip(evidence_times(pts_s, segment)) for segment in state.task.evidence or ()]
        return [*super()._opened(state), *evidence]


def _truth(task: Task) -> dict[str, Any]:
    box = None if task.evidence_region is None else task.evidence_region.as_tuple()
    return {
        "right": task.answer,
        "given": None,
        "evidence": [[segment.start_s, segment.end_s] for segment in task.evidence or ()],
        "annotated": task.evidence is not None,
        "evidence_region": box,
        "task_id": task.task_id,
        "video": task.video,
    }
