"""Tasks with their answers and evidence, one after the other, for a person to accept or reject.

Nothing is played: the first frames of an episode are shown and those of the evidence, and the ground truth
beside them.
"""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np

from videogym.data.verdicts import Verdicts
from videogym.geometry import Segment
from videogym.play.game import Game, Refused, Stale
from videogym.state import Action, Clip, State, Task
from videogym.video.times import ordinals_at

_FPS = 2.0  # at which evidence is shown
_MOST = 16  # frames of a segment


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
        self._evidence: list[Clip] = []
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
                for clip in self._evidence
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

    def _begin_next(self) -> None:
        """Go to the next task without a verdict; where all have one, to the next."""
        count = len(self._inner.tasks)
        ahead = [(self._position + step) % count for step in range(1, count + 1)]
        left = [place for place in ahead if self._verdicts.of(self._inner.tasks[place]) is None]
        if left:
            self._position = (left[0] - 1) % count
        super()._begin_next()

    def _begin(self, position: int) -> None:
        super()._begin(position)
        state = self._inner.state
        self._evidence = [self._clip(state, segment) for segment in state.task.evidence or ()]
        self._pictures += [self._drawn(state, clip) for clip in self._evidence]

    def _clip(self, state: State, segment: Segment) -> Clip:
        pts_s = self._inner.store.open(state.task.video).pts_s
        count = int(np.clip(round(segment.length_s * _FPS), 1, _MOST))
        middles = segment.start_s + segment.length_s * (np.arange(count) + 0.5) / count
        return Clip(tuple(np.unique(pts_s[ordinals_at(pts_s, middles)]).tolist()))


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
