"""An episode as a person sees and plays it: plain values and pictures out, actions back in.

Frames have the recipe's pixel budget, as a policy's have, and an action is put into the words of the
recipe's grammar, so that a stored episode can serve as a demonstration. The ground truth is told when the
episode is over, not before. HTTP is not known here.
"""

from __future__ import annotations

import io
import threading
from typing import Any

import gymnasium
from PIL import Image

from videogym.actions import Crop, begin
from videogym.env import VideoQAEnv
from videogym.geometry import Region
from videogym.grammars import get_grammar
from videogym.rewards import answered_right, score
from videogym.sizes import clip_size
from videogym.state import Action, Clip, Move, Result, Rules, State
from videogym.video import UnfitVideo, VideoError

_QUALITY = 90  # of JPEG


class Stale(Exception):
    """What a person did was meant for another turn than the one that is due."""


class Refused(ValueError):
    """An action that cannot be played and costs nothing; the message says what to do."""


class Game:
    """Episodes of an environment, one after the other, in the order of its tasks. Threads take turns.

    Args:
        env: a videogym environment that takes moves: plain, or in wrappers that change no action.
        first: id of the task to begin with; None: the first whose video can be used.

    Raises:
        ValueError: the environment is none of ours, or there is no such task.
        VideoError: the video of the task named, or of all of them, cannot be used.
    """

    def __init__(self, env: gymnasium.Env[Any, Any], first: str | None = None) -> None:
        inner = env.unwrapped
        if not isinstance(inner, VideoQAEnv):
            raise ValueError(f"one plays in a videogym environment, got {type(inner).__name__}")
        self._env, self._inner = env, inner
        self._grammar = get_grammar(inner.recipe.grammar)
        self._lock = threading.RLock()
        self._episode = 0  # number of the episode that is played, from 1
        self._opening: list[Clip] = []  # what it began with
        self._pictures: list[list[bytes]] = []  # JPEG, by clip
        self._paid: list[tuple[float, dict[str, float | None]]] = []  # reward and terms, by turn
        self._position = -1  # of the task
        self._skipped: list[str] = []  # why tasks before this one were passed over
        if first is None:
            self._begin_next()
        else:
            inner.tasks.by_id(first)  # raises where there is none
            self._begin(next(i for i, task in enumerate(inner.tasks) if task.task_id == first))

    # --- what a person does ----------------------------------------------------------------------

    @property
    def rules(self) -> Rules:
        """Those of every episode."""
        return self._inner.recipe.rules

    def act(self, episode: int, turn: int, action: Action, thought: str = "") -> None:
        """Play one turn.

        Args:
            episode: number of the episode, and
            turn: of turns played in it when the action was chosen, as `view` told them.
            action: a look or an answer. What the environment refuses spends the turn.
            thought: why; it stands before the action in the episode's text.

        Raises:
            Stale: another turn is due.
            Refused: the thought cannot be written down.
            OSError: the turn was played, and the episode could not be stored.
        """
        with self._lock:
            state = self._inner.state
            if (episode, turn) != (self._episode, len(state.turns)) or state.terminated:
                raise Stale("this turn has been played")
            self._step(state, self._move(state, action, thought.strip()))
            if self._inner.state.terminated:
                return
            state = self._inner.state
            try:
                self._pictures += [self._drawn(state, clip) for clip in state.turns[-1].clips]
            except VideoError as error:
                _, reward, _, _, info = self._inner.report_fault(str(error))
                self._paid[-1] = _payment(reward, info)

    def next_episode(self, episode: int) -> None:
        """Go on to the next task; the first follows the last.

        Args:
            episode: number of the episode that is left.

        Raises:
            Stale: another one is played.
            VideoError: no task has a video that can be used.
        """
        with self._lock:
            if episode != self._episode:
                raise Stale("another episode has begun")
            self._begin_next()

    # --- what a person sees ----------------------------------------------------------------------

    def picture(self, episode: int, clip: int, frame: int) -> bytes | None:
        """A frame that was shown, as JPEG; None where there is none such."""
        with self._lock:
            if episode != self._episode or not 0 <= clip < len(self._pictures):
                return None
            return self._pictures[clip][frame] if 0 <= frame < len(self._pictures[clip]) else None

    def view(self) -> dict[str, Any]:
        """The episode in plain values, ready for JSON."""
        with self._lock:
            state = self._inner.state
            return {
                "episode": self._episode,
                "position": [self._position + 1, len(self._inner.tasks)],
                "skipped": self._skipped,
                "recipe": self._inner.recipe.name,
                **_question(state),
                **_rules(state),
                "clips": self._clips(state),
                "turns": [
                    {
                        "results": [_result(r, state.video.duration_s) for r in turn.results],
                        "fault": turn.fault,
                    }
                    for turn in state.turns
                ],
                "over": state.terminated,
                "outcome": self._outcome(state) if state.terminated else None,
            }

    def _clips(self, state: State) -> list[dict[str, Any]]:
        numbers = [0, *(n for n, turn in enumerate(state.turns, start=1) for _ in turn.clips)]
        return [
            {
                "turn": number,
                "times_s": clip.times_s,
                "region": _box(clip.region),
                "size": clip_size(clip, state.video, state.rules),
                # Frames that the last turn brings are shown to nobody.
                "pictures": len(self._pictures[i]) if i < len(self._pictures) else 0,
            }
            for i, (number, clip) in enumerate(zip(numbers, state.clips, strict=True))
        ]

    def _outcome(self, state: State) -> dict[str, Any]:
        task, terms = state.task, self._paid[-1][1]
        return {
            "ending": state.ending,
            "correct": answered_right(self._inner.recipe.terms, terms.get("answer"), state),
            "given": state.answer,
            "right": task.answer,
            "evidence": [[s.start_s, s.end_s] for s in task.evidence or ()],
            "annotated": task.evidence is not None,
            "evidence_region": _box(task.evidence_region),
            "reward": sum(reward for reward, _ in self._paid),
            "paid": [{"reward": reward, "terms": terms} for reward, terms in self._paid],
            "texts": [turn.text for turn in state.turns],
            "task_id": task.task_id,
            "video": task.video,
        }

    # --- the episode -----------------------------------------------------------------------------

    def _begin_next(self) -> None:
        skipped: list[str] = []
        for position in self._ahead():
            try:
                self._begin(position)
            except VideoError as error:
                skipped.append(str(error))
            else:
                self._skipped = skipped
                return
        raise VideoError(f"none of the {len(skipped)} tasks has a usable video: {skipped[0]}")

    def _ahead(self) -> list[int]:
        """Positions of all tasks in the order in which they are tried, the one that is shown last."""
        count = len(self._inner.tasks)
        return [(self._position + step) % count for step in range(1, count + 1)]

    def _opened(self, state: State) -> list[Clip]:
        """What an episode begins with.

        Raises:
            VideoError: the video cannot be used.
        """
        return [state.skim]

    def _begin(self, position: int) -> None:
        """Begin an episode; where what it begins with cannot be shown, the one before it goes on."""
        inner, task = self._inner, self._inner.tasks[position]
        video = inner.store.open(task.video)
        try:
            state = begin(task, video.meta, video.pts_s, inner.recipe.rules, inner.recipe.identity)
        except ValueError as error:
            raise UnfitVideo(f"{task.video}: {error}") from error
        opening = self._opened(state)
        pictures = [self._drawn(state, clip) for clip in opening]
        self._env.reset(options={"task_id": task.task_id})
        self._opening, self._pictures = opening, pictures
        self._position, self._paid, self._skipped = position, [], []
        self._episode += 1

    def _step(self, state: State, move: Move) -> None:
        try:
            _, reward, _, _, info = self._env.step(move)
        except OSError:
            if self._inner.state is not state:  # it was played, and the episode could not be stored
                paid = score(self._inner.recipe.terms, state, self._inner.state)
                self._paid.append((paid.reward, dict(paid.terms)))
            raise
        self._paid.append(_payment(reward, info))

    def _move(self, state: State, action: Action, thought: str) -> Move:
        """The action in words; as it is where the grammar has none for it, which the rules then refuse."""
        try:
            return self._grammar.parse(self._grammar.write(action, state, thought), state)
        except ValueError:
            pass
        try:
            self._grammar.write(action, state)
        except ValueError:
            return Move((action,))
        raise Refused("Leave tags out of the thought: the grammar would take them for its own.")

    def _drawn(self, state: State, clip: Clip) -> list[bytes]:
        """Frames of a clip as a policy sees them.

        Raises:
            VideoError: one of them cannot be decoded.
        """
        batch = self._inner.store.frames(
            state.task.video,
            clip.times_s,
            size=clip_size(clip, state.video, state.rules),
            region=clip.region.as_tuple() if clip.region else None,
        )
        return [_jpeg(Image.fromarray(pixels)) for pixels in batch.pixels]


def _jpeg(image: Image.Image) -> bytes:
    file = io.BytesIO()
    image.save(file, "JPEG", quality=_QUALITY)
    return file.getvalue()


def _payment(reward: Any, info: dict[str, Any]) -> tuple[float, dict[str, float | None]]:
    """Reward and terms of a turn; None for a term that is absent."""
    present = info["reward_present"]
    terms = {n: float(v) if present[n] else None for n, v in info["reward_terms"].items()}
    return float(reward), terms


def _question(state: State) -> dict[str, Any]:
    task, video = state.task, state.video
    return {
        "question": task.question,
        "kind": task.kind,
        "options": [
            {"letter": letter, "text": text}
            for letter, text in zip(task.letters, task.options, strict=True)
        ],
        "duration_s": video.duration_s,
        "frame": [video.width, video.height],
        "pool_s": state.pool_s,
    }


def _rules(state: State) -> dict[str, Any]:
    rules = state.rules
    return {
        "looks": [kind for kind in rules.actions if kind != "answer"],
        "searches": "find" in rules.actions,
        "regions": rules.regions,
        "arguments": [
            {"name": name, "whole": schema["type"] == "integer", "hint": schema["description"]}
            for name, schema in Crop.parameters(rules).items()
            if name in rules.crop_arguments
        ],
        "crop_fps": rules.crop_fps,
        "clip_frames": rules.clip_frames,
        "max_turns": rules.max_turns,
        "turns_left": state.turns_left,
        "frames_shown": state.frames_shown,
        "frames_left": state.frames_left,
        "last_turn_look": rules.last_turn_look == "execute",
    }


def _result(result: Result, duration_s: float) -> dict[str, Any]:
    action, error = result.action, result.error
    asked = action.segment(duration_s)
    row: dict[str, Any] = {"kind": action.kind, "label": action.label()}
    row["segment"] = None if asked is None else [asked.start_s, asked.end_s]
    row["frames"] = len(result.clip.times_s) if result.clip else 0
    row["reply"] = result.reply
    row["error"] = None if error is None else {"code": error.code, "reason": error.reason}
    return row


def _box(region: Region | None) -> tuple[float, float, float, float] | None:
    return None if region is None else region.as_tuple()
