"""The environment: a thin shell that wires state, video, observation and reward.

Everything that decides something lives elsewhere: `videogym.actions` plays the turn,
`videogym.observations` builds what is seen, `videogym.rewards` pays. The shell holds the open
videos, the random generator and the current state.
"""

from __future__ import annotations

import copy
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, get_args

import gymnasium
import numpy as np
from numpy.typing import NDArray

from videogym.actions import begin, mark_fault, play, play_fault
from videogym.actions.structured import action_space, as_move
from videogym.datasets import check_evidence, check_length, check_same_video
from videogym.datasets.loading import Root, Source, as_tasks
from videogym.observations import (
    Observation,
    Observe,
    boxed_size,
    build_observation,
    check_text_lengths,
    newest_clips,
    observation_space,
)
from videogym.recipes import Recipe, get_recipe
from videogym.responding import NoDescription
from videogym.rewards import (
    AbsentTerm,
    Score,
    answered_right,
    best_coverage,
    looked_regions,
    looked_segments,
    score,
)
from videogym.state import Clip, State, Task
from videogym.video import (
    Backend,
    FrameBatch,
    FrameStore,
    UnfitVideo,
    Video,
    VideoChanged,
    VideoError,
    letterbox,
)

DEFAULT_TASKS = "procedural:brief_event?level=0&duration_s=600&count=1000&split=train"
MAX_FRAME_SIDE = 4096


@dataclass(frozen=True)
class Snapshot:
    """A saved episode: everything needed to go on from here, in any process. No decoder inside."""

    state: State
    rng: dict[str, Any]  # state of the environment's bit generator


class VideoQAEnv(gymnasium.Env[Observation, Any]):
    """A question about a long video and a limited budget of frames.

    ## Description
    The policy gets a question about a video that is minutes or hours long, and a coarse skim of it.
    Turn by turn it selects or crops a segment and sees new frames. At the end it answers. The recipe
    sets the actions, the sampling of frames and the rewards: `VIDEO_MTR` and `LONGVT` rebuild two
    published systems, `DEFAULT` is videogym's own.

    ## Action Space
    A `Dict`. Keys that an action does not use are ignored.

    | key | space | meaning |
    |---|---|---|
    | `kind` | `Discrete` | index into the recipe's actions, e.g. 0 = crop, 1 = answer |
    | `segment` | `Box(2,)` float64 | start and end as shares of the duration, for select and crop |
    | `region` | `Box(4,)` float32 | x0, y0, x1, y1 in [0, 1], for crop, if the recipe has regions |
    | `fps` | `Box(1,)` float64 | rate of a crop, a share of the recipe's highest or of 60; 0: not given |
    | `frames` | `Discrete` | number of frames of a crop, if the recipe allows it; 0: not given |
    | `scale` | `Box(1,)` float64 | scale of a crop, a share of the recipe's largest; 0: not given |
    | `query` | `UnicodeText` | what to search for, for find, where the recipe has it |
    | `k` | `Discrete` | how many moments of a find; 0: left out |
    | `option` | `Discrete(26)` | index of the answer's option, if the task has options |
    | `answer` | `UnicodeText` | the answer to an open or numeric question |

    If `frames` is above 0, `fps` is ignored. `step` also takes a `videogym.Select`, `Crop`, `Find` or
    `Answer` in seconds, a `Move` as returned by a grammar, or a list of actions for one turn. An action
    that cannot be executed uses up the turn, and `message` says why.

    ## Observation Space
    A `Dict` of fixed shapes, padded with zeros. Masks tell frames from padding.

    | key | meaning |
    |---|---|
    | `question`, `options`, `task_kind` | the task; `task_kind` 0 choice, 1 open, 2 numeric |
    | `video`, `duration_s` | address and length of the video |
    | `message` | why the last action was not executed, or how a bound changed it (if the recipe says so) |
    | `turn`, `turns_left`, `frames_left` | turns played, turns left, frames left (-1: no budget) |
    | `clip_times_s`, `clip_regions`, `clip_mask` | frames that this observation adds |
    | `shown_times_s`, `shown_regions`, `shown_turns`, `shown_mask` | all frames shown; turn 0 is the skim |
    | `pool_times_s`, `pool_mask` | candidate frames, if the recipe has a pool |
    | `clip` | (N, H, W, 3) uint8 RGB pixels, letterboxed; only with `observe="pixels"` |

    Frame references are the default. `videogym.FrameStore.frames` resolves them at any size.

    ## Starting State
    A task is drawn at random with the environment's generator, or set by
    `reset(options={"task_id": ...})`. The seed is not a task index. The first observation has the skim.

    ## Rewards
    The weighted sum of the recipe's terms, each reported in `info["reward_terms"]`. Turn terms are
    paid in their turn. If the answer is wrong, the gate takes gated payments back in the last step, so
    that the undiscounted return equals the recipe's formula.

    ## Episode End
    `terminated`: the recipe's rules ended it (an answer, the last turn, the last call, or an unreadable
    output if the recipe says so). `truncated` is only set by wrappers such as `TimeLimit`.

    ## Information
    The same keys after `reset` and every `step`: `task_id`, `turn`, `frames_shown`, `invalid`,
    `error_code`, `fault`, `ending`, `is_success`, `reward_terms` (NaN where a term is absent),
    `reward_present`, `bad_videos` (tasks skipped since the environment was made), `recipe`; with
    `privileged=True` also `answer`, `evidence_s` and `coverage`.

    ## Arguments
    Args:
        tasks: a source for `videogym.datasets.load_tasks` (``"procedural:..."`` or the path of a task
            file), a list of them, a mapping from each to the folder of its videos, or tasks.
        recipe: a `Recipe` or the name of one.
        video_root: folder below which relative video paths of a task file lie.
        observe: ``"references"``, or ``"pixels"`` to put frames into the observation.
        frame_size: ``(width, height)`` of those frames.
        backend: how files are decoded, ``"pyav"``, ``"decord"`` or ``"torchcodec"``.
        cache_dir: folder of packet tables and of frame grids made by `FrameStore.build_grid`, shared by
            processes; None means ``$VIDEOGYM_CACHE`` or ``~/.cache/videogym``.
        open_videos: most videos kept open; raise it if one environment alternates between many episodes.
        deadline_s: seconds after which opening a video, or decoding one of its frames, is given up, see
            `videogym.video.open_video`. Such a video counts as a bad video.
        on_bad_video: what `reset` does if a task's video cannot be used: ``"raise"``, or ``"skip"`` to
            draw another task and count the skipped one.
        privileged: put the ground truth into `info` and into pictures.
        render_mode: ``"rgb_array"`` for a picture of the timeline and the frames, ``"ansi"`` for text,
            ``"human"`` to write that text to the standard output after `reset` and every `step`.

    Raises:
        ValueError: an argument is not one of those above.
        TaskFileError: the task file is invalid.

    ## Version History
    * v0: first version.
    """

    metadata: dict[str, Any] = {"render_modes": ["rgb_array", "ansi", "human"], "render_fps": 1}  # noqa: RUF012

    def __init__(
        self,
        tasks: Source | Mapping[str, Root] | Sequence[Task] | Sequence[Source] = DEFAULT_TASKS,
        recipe: str | Recipe = "DEFAULT",
        *,
        video_root: str | None = None,
        observe: Observe = "references",
        frame_size: tuple[int, int] = (224, 224),
        backend: Backend = "pyav",
        cache_dir: str | None = None,
        open_videos: int = 8,
        deadline_s: float = 60.0,
        on_bad_video: Literal["raise", "skip"] = "raise",
        privileged: bool = False,
        render_mode: str | None = None,
    ) -> None:
        _check_choice("observe", observe, ("references", "pixels"))
        _check_choice("backend", backend, get_args(Backend))
        _check_choice("on_bad_video", on_bad_video, ("raise", "skip"))
        _check_choice("render_mode", render_mode, (None, *self.metadata["render_modes"]))
        self.recipe = get_recipe(recipe) if isinstance(recipe, str) else recipe
        self.tasks = as_tasks(tasks, video_root)
        self.store = FrameStore(
            cache_dir=cache_dir,
            backend=backend,
            video_root=video_root,
            deadline_s=deadline_s,
            open_videos=open_videos,
        )
        self.observe, self.frame_size = observe, _check_size(frame_size)
        self.on_bad_video, self.privileged, self.render_mode = on_bad_video, privileged, render_mode
        self.observation_space = observation_space(self.recipe.rules, observe, self.frame_size)
        self.action_space = action_space(self.recipe.rules)
        self._state: State | None = None
        self._pixels: NDArray[np.uint8] | None = None
        self._bad_videos = 0

    @property
    def state(self) -> State:
        """The current state.

        Raises:
            ValueError: `reset` has not been called.
        """
        if self._state is None:
            raise ValueError("there is no episode yet; call reset first")
        return self._state

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Observation, dict[str, Any]]:
        """Start an episode.

        Args:
            seed: seeds the generator that draws tasks.
            options: ``{"task_id": ...}`` pins the task, ``{"skim_frames": 8}`` shows fewer first frames
                than the recipe, ``{"iteration": 9}`` draws by the weights of a mixture at that iteration.

        Raises:
            ValueError: an option is unknown or out of range, or the task is unknown or unfit for its video.
            VideoError: the task's video cannot be used; the message names task and file.
        """
        super().reset(seed=seed)
        options = options or {}
        if unknown := set(options).difference(known := ("task_id", "skim_frames", "iteration")):
            raise ValueError(f"unknown reset options {sorted(unknown)}; known: {', '.join(known)}")
        skim_frames = options.get("skim_frames")
        self.recipe.rules.skimming(skim_frames)  # refused here and now, whatever the task
        if "task_id" in options:
            self._begin(self.tasks.by_id(options["task_id"]), skim_frames)
        else:
            self._begin_any(skim_frames, options.get("iteration", 0))
        self._show()
        return self._observation(), self._info(None)

    def _begin_any(self, skim_frames: int | None, iteration: int) -> None:
        """Draw tasks until one can be shown; a bad video raises or is counted."""
        bad = 0
        for position in self.tasks.draws(self.np_random, iteration):
            try:
                return self._begin(self.tasks[position], skim_frames)
            except VideoError:
                if self.on_bad_video == "raise":
                    raise
                bad += 1
                self._bad_videos += 1
        raise VideoError(f"none of the {bad} tasks that can be drawn has a usable video")

    def _begin(self, task: Task, skim_frames: int | None) -> None:
        try:
            check_text_lengths(task)
            state = self._first_state(task, skim_frames)
            pixels = self._fetch(state)
        except VideoError as error:
            raise type(error)(f"task {task.task_id!r}: {error}") from error
        self._state, self._pixels = state, pixels

    def _first_state(self, task: Task, skim_frames: int | None) -> State:
        video = self.store.open(task.video)
        if self.recipe.search is not None:
            self.recipe.search.check(video)
        check_same_video(task, video.meta)
        try:
            check_length(video.meta, self.recipe.rules.max_duration_s)
            check_evidence(task, video.meta.duration_s)
            recipe = self.recipe
            return begin(task, video.meta, video.pts_s, recipe.rules, recipe.identity, skim_frames)
        except ValueError as error:
            # The video is sound but unfit for this task or recipe: too short, or evidence beyond its end.
            raise UnfitVideo(f"{task.video}: {error}") from error

    def step(self, action: Any) -> tuple[Observation, float, bool, bool, dict[str, Any]]:
        """Play one turn.

        Args:
            action: a member of `action_space`, an `Action`, a `Move`, or a list of those of one turn.

        Raises:
            ValueError: the episode has ended, or the action is none of the above.
            SearchError: the recipe's index gave what cannot be.
            ResponderError: the recipe's responder failed.
            RewardError: a reward term is not a finite number; the message names term and task.
        """
        before = self.state
        move = as_move(action, before)
        try:
            video = self._video(before)
            asked = self.recipe.search_in(video), self.recipe.describe_in(self.store, before)
            after = self.recipe.verified(self.store, play(before, move, video.pts_s, *asked))
            pixels = self._fetch(after)
        except (VideoError, NoDescription) as error:
            after = play_fault(before, move, str(error))
            pixels = self._fetch(after)
        return self._end_turn(before, after, pixels)

    def report_fault(self, fault: str) -> tuple[Observation, float, bool, bool, dict[str, Any]]:
        """Play the last turn again as one whose frames could not be shown.

        For policies that resolve references and meet a `VideoError` only then: they get what `step`
        would have returned, had it decoded the frames itself. What `step` returned before is void. A
        turn that brought no frames is only marked: those that cannot be shown any more are older.

        Args:
            fault: why, for the log.

        Raises:
            ValueError: no turn was played.
        """
        if not self.state.turns:
            raise ValueError("there is no turn to report a fault of")
        before = replace(self.state, turns=self.state.turns[:-1], ending="")
        after = mark_fault(before, self.state, fault)
        return self._end_turn(before, after, self._fetch(after))

    def _end_turn(
        self, before: State, after: State, pixels: NDArray[np.uint8] | None
    ) -> tuple[Observation, float, bool, bool, dict[str, Any]]:
        self._state, self._pixels = after, pixels
        paid = score(self.recipe.terms, before, after)
        self._show()
        return self._observation(), float(paid.reward), after.terminated, False, self._info(paid)

    def get_state(self) -> Snapshot:
        """The episode as it is; O(1), since states are immutable."""
        return Snapshot(self.state, copy.deepcopy(dict(self.np_random.bit_generator.state)))

    def set_state(self, snapshot: Snapshot) -> Observation:
        """Go on from a saved episode, the same or another environment's.

        Raises:
            ValueError: the snapshot was made under another recipe.
            VideoChanged: the video file is not the one the snapshot was made with.
        """
        state = snapshot.state
        if state.recipe_id != self.recipe.identity:
            raise ValueError(f"the snapshot is of recipe {state.recipe_id}, not {self.recipe.identity}")
        self._video(state)
        self._state, self._pixels = state, self._fetch(state)
        self.np_random.bit_generator.state = snapshot.rng
        return self._observation()

    def render(self) -> NDArray[np.uint8] | str | None:  # type: ignore[override]
        """The picture or text of the current state, as `render_mode` says; None for ``"human"``."""
        from videogym.rendering import render_ansi, render_rgb

        if self.render_mode == "ansi":
            return render_ansi(self.state)
        if self.render_mode == "rgb_array":
            return render_rgb(self.state, self.store, evidence=self.privileged)
        return None

    def _show(self) -> None:
        """Write the state to the terminal, if a person watches."""
        if self.render_mode == "human":
            from videogym.rendering import render_ansi

            text, encoding = render_ansi(self.state), sys.stdout.encoding or "utf-8"
            sys.stdout.write(text.encode(encoding, "replace").decode(encoding) + "\n")
            sys.stdout.flush()

    def close(self) -> None:
        """Release decoders. Closing twice is allowed."""
        self.store.close()

    def _video(self, state: State) -> Video:
        """The video of a state; refused if its content is not what it was when the episode began."""
        video = self.store.open(state.task.video)
        if video.meta.fingerprint != state.video.fingerprint:
            raise VideoChanged(
                f"{state.task.video} has fingerprint {video.meta.fingerprint}, "
                f"the snapshot {state.video.fingerprint}"
            )
        return video

    def _fetch(self, state: State) -> NDArray[np.uint8] | None:
        """Pixels of the newest clips, letterboxed and padded; None when references are observed."""
        if self.observe == "references":
            return None
        width, height = self.frame_size
        # One array for the whole observation: a frame is copied once, and untouched padding costs nothing.
        pixels = np.zeros((self.recipe.rules.max_clip_frames, height, width, 3), np.uint8)
        row = 0
        for clip in newest_clips(state):
            batch = self._fetch_clip(state, clip)
            letterbox(batch.pixels, self.frame_size, out=pixels[row : row + len(batch)])
            row += len(batch)
        return pixels

    def _fetch_clip(self, state: State, clip: Clip) -> FrameBatch:
        box = clip.region.as_tuple() if clip.region else None
        size = boxed_size(state, clip, self.frame_size)
        return self.store.frames(state.task.video, clip.times_s, size=size, region=box)

    def _observation(self) -> Observation:
        return build_observation(self.state, self._pixels)

    def _is_success(self, paid: Score | None) -> bool:
        """Whether the answer was right; False where the judge abstained, which `evaluate` leaves out."""
        if paid is None:  # nothing was played
            return False
        return bool(answered_right(self.recipe.terms, paid.terms.get("answer"), self.state))

    def _info(self, paid: Score | None) -> dict[str, Any]:
        state = self.state
        turn = state.turns[-1] if state.turns else None
        error = turn.error if turn else None
        terms = paid.terms if paid else dict.fromkeys(self.recipe.term_names)
        info: dict[str, Any] = {
            "task_id": state.task.task_id,
            "turn": np.int64(len(state.turns)),
            "frames_shown": np.int64(state.frames_shown),
            "invalid": np.bool_(error is not None),
            "error_code": error.code if error else "",
            "fault": turn.fault if turn else "",
            "ending": state.ending,
            "is_success": np.bool_(self._is_success(paid)),
            "reward_terms": {n: AbsentTerm() if v is None else np.float64(v) for n, v in terms.items()},
            "reward_present": {n: np.bool_(v is not None) for n, v in terms.items()},
            "bad_videos": np.int64(self._bad_videos),
            "recipe": self.recipe.identity,
        }
        return info | (self._privileged_info() if self.privileged else {})

    def _privileged_info(self) -> dict[str, Any]:
        state, task = self.state, self.state.task
        coverage = best_coverage(state, looked_segments(state), looked_regions(state))
        return {
            "answer": task.answer,
            "evidence_s": tuple((segment.start_s, segment.end_s) for segment in task.evidence or ()),
            "coverage": np.float64(np.nan if coverage is None else coverage),
        }


def _check_size(frame_size: tuple[int, int]) -> tuple[int, int]:
    width, height = frame_size
    if not (1 <= width <= MAX_FRAME_SIDE and 1 <= height <= MAX_FRAME_SIDE):
        raise ValueError(
            f"frame_size must be (width, height) within 1 to {MAX_FRAME_SIDE}, got {frame_size}"
        )
    return int(width), int(height)


def _check_choice(name: str, value: object, allowed: tuple[object, ...]) -> None:
    if value not in allowed:
        raise ValueError(f"{name} must be one of {allowed}, got {value!r}")
