"""Captions of scenes by a language model that sees their frames."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from videogym.data.asking import Asker, ContentPart, object_in, text_in, text_part, timed_images, user
from videogym.data.prompts import StepPrompt, step_prompt
from videogym.data.scenes import open_unchanged, size_within
from videogym.data.work import Dropped, Item, Made, Progress, Summary, WorkFolder, run_step
from videogym.video import FrameStore, Video
from videogym.video.times import ordinals_at

_VERSION = 1
_BOX = (448, 448)  # pixels that a frame fits into


def caption_scenes(
    work: WorkFolder,
    asker: Asker,
    prompt: StepPrompt | None = None,
    *,
    fps: float = 1.0,
    max_frames: int = 16,
    jobs: int = 1,
    progress: Progress | None = None,
) -> Summary:
    """Have every scene described.

    Args:
        work: whose scenes.
        asker: who describes.
        prompt: the prompt ``caption``; None: ours.
        fps: frames a second that are shown of a scene.
        max_frames: at most so many, evenly spread.
        jobs: scenes asked about at once.
        progress: called with (done, total).

    Raises:
        DataError: the scenes were not found yet, or the folder holds something else.
        VideoChanged: a video is not the one whose scenes were found.
        EndpointError: the endpoint cannot be used.
    """
    prompt = prompt or step_prompt("caption")
    by = {"version": _VERSION, "model": asker.model, "prompt": prompt.identity}
    by |= {"fps": fps, "max_frames": max_frames}
    with FrameStore(video_root=work.video_root) as store:

        def make(source: tuple[dict[str, Any], tuple[float, float]]) -> Made:
            row, (start_s, end_s) = source
            video = open_unchanged(store, row)
            shown = segment_frames(store, video, row["video"], start_s, end_s, fps, max_frames)
            text = text_part(prompt.fill(start_s=float(start_s), end_s=float(end_s)))
            found = object_in(asker.ask("captions", [user(text, *shown)]))
            facts = {"video": row["video"], "start_s": start_s, "end_s": end_s}
            caption = found if isinstance(found, Dropped) else text_in(found, "caption")
            if isinstance(caption, Dropped):
                where = f"{row['video']} from {start_s:.2f} to {end_s:.2f} s: {caption.reason}"
                return Dropped(caption.code, where, facts)
            return {**facts, "caption": caption}

        items = [
            Item(f"{row['place']}#{i}", (row["key"],), by, (row, tuple(scene)))
            for row in work.kept("scenes")
            for i, scene in enumerate(row["scenes"])
        ]
        return run_step(
            work,
            "captions",
            items,
            make,
            jobs=jobs,
            progress=progress,
            cost=asker.cost,
            max_tokens=asker.max_tokens,
        )


def segment_frames(
    store: FrameStore, video: Video, source: str, start_s: float, end_s: float, fps: float, max_frames: int
) -> list[ContentPart]:
    """Frames of ``[start_s, end_s)``, evenly spread, each after its time; at least one."""
    count = max(1, min(max_frames, math.ceil((end_s - start_s) * fps)))
    middles = start_s + (end_s - start_s) * (np.arange(count) + 0.5) / count
    times_s = _distinct(video.pts_s, middles, start_s)
    size = size_within(video, _BOX)
    return timed_images(store.frames(source, times_s, size=size), times_s)


def _distinct(pts_s: NDArray[np.float64], times_s: NDArray[np.float64], start_s: float) -> list[float]:
    """Presentation times of the frames on display, each once; none that began before the segment does."""
    shown = np.unique(pts_s[ordinals_at(pts_s, times_s.tolist())])
    inside = shown[shown >= start_s]
    return (inside if len(inside) else shown[-1:]).tolist()  # type: ignore[no-any-return]
