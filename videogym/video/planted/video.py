"""A planted video: the frames of another one, with something drawn into some of them."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from videogym.video.file_video import FileVideo
from videogym.video.identity import FileIdentity, fingerprint, identify, require_unchanged
from videogym.video.pixels import View, region_box
from videogym.video.planted.address import PlantedAddress, canonical
from videogym.video.planted.drawing import (
    Overlay,
    Patch,
    patch_overlay,
    patch_size,
    picture_patch,
    shape_overlay,
)
from videogym.video.planted.insertion import Insertion
from videogym.video.synthetic.shapes import Canvas
from videogym.video.times import ordinals_at
from videogym.video.types import FrameBatch, Resizer, Video, VideoChanged, VideoMeta

INSERTION_RENDERER = 1  # part of every fingerprint; goes up when pixels of insertions change

Files = Mapping[str, Video | str]  # what insertions name: an open video, or the path of a picture or font


class PlantedVideo:
    """A `videogym.video.Video` whose frames are those of another, insertions aside.

    Insertions are drawn after a frame was cut and resized, so that all pixels outside their boxes are the
    source's, bit for bit, at any size. Times, lengths and marks of damage are the source's.

    Args:
        source: any video.
        insertions: drawn in their order.
        files: of every file that they name, the open video or the path.
        owned: whether closing this video closes the others.

    Raises:
        InvalidAddress: an insertion lies beyond the end, its text does not fit or its font lacks a letter.
        UnreadableVideo: a picture cannot be read.
    """

    def __init__(
        self,
        source: Video,
        insertions: Sequence[Insertion],
        files: Files | None = None,
        *,
        owned: bool = True,
    ) -> None:
        self._source, self._insertions = source, tuple(insertions)
        self._files, self._owned = dict(files or {}), owned
        paths = [path for path in self._files.values() if isinstance(path, str)]
        self._identities: dict[str, FileIdentity] = {path: identify(path) for path in paths}
        self._patches: dict[Insertion, Patch] = {}
        self._overlays: dict[tuple[Insertion, View], Overlay | None] = {}
        for insertion in self._insertions:
            insertion.require_fits(source.meta)
            if insertion.kind in ("text", "image"):
                self._patches[insertion] = self._still(insertion)

    @property
    def source(self) -> Video:
        """The video without insertions."""
        return self._source

    @property
    def insertions(self) -> tuple[Insertion, ...]:
        """What is drawn; the ground truth, not for policies."""
        return self._insertions

    @cached_property
    def meta(self) -> VideoMeta:
        """Facts about the video: the source's, but for the fingerprint, which knows the insertions."""
        text = f"{INSERTION_RENDERER} {self._source.meta.fingerprint} {_drawn_text(self._insertions)}"
        digest = hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()
        return replace(self._source.meta, fingerprint=f"planted-{digest[:32]}")

    @property
    def pts_s(self) -> NDArray[np.float64]:
        """(num_frames,) presentation times, seconds; read-only."""
        return self._source.pts_s

    @cached_property
    def cache_key(self) -> str:
        """Names the pixels that this video gives: insertions, what draws letters, the source's decoder."""
        own = self.meta.fingerprint
        if any(insertion.kind in ("text", "image") for insertion in self._insertions):
            import PIL

            own += f"-pillow{PIL.__version__}"
        keys = [getattr(video, "cache_key", video.meta.fingerprint) for video in self._videos()]
        return f"{own}-{hashlib.sha256(' '.join(keys).encode()).hexdigest()[:16]}"

    def frames_at(
        self,
        times_s: Sequence[float],
        *,
        size: tuple[int, int] | None = None,
        region: tuple[float, float, float, float] | None = None,
        resizer: Resizer = "bicubic",
    ) -> FrameBatch:
        """The frames on display at the given instants, see `videogym.video.Video.frames_at`."""
        view = View(size, region, resizer)
        self.require_unchanged()
        batch = self._source.frames_at(times_s, size=size, region=region, resizer=resizer)
        self.draw(batch.pixels, batch.pts_s, view)
        return batch

    def draw(self, pixels: NDArray[np.uint8], pts_s: NDArray[np.float64], view: View) -> None:
        """Draw the insertions over frames of the source, in place.

        Args:
            pixels: ``(N, H, W, 3)`` uint8, the view of each frame.
            pts_s: (N,) their times.
            view: how they are shown.
        """
        canvas = self._canvas(view)
        for image, number in zip(pixels, ordinals_at(self.pts_s, pts_s).tolist(), strict=True):
            for insertion in self._insertions:
                if insertion.first <= number < insertion.end:
                    overlay = self._overlay(insertion, number, canvas, view)
                    if overlay is not None:
                        overlay.draw(image)

    def doubtful(self, pts_s: NDArray[np.float64]) -> NDArray[np.bool_]:
        """Whether frames with such times are marked, see `FileVideo.doubtful`."""
        if isinstance(self._source, FileVideo):
            return self._source.doubtful(pts_s)
        return np.zeros(len(pts_s), np.bool_)

    def require_unchanged(self) -> None:
        """Check that all files are still those that were opened.

        Raises:
            VideoChanged: one was modified, replaced or removed.
        """
        for video in self._videos():
            if isinstance(video, FileVideo):
                video.require_unchanged()
        for path, identity in self._identities.items():
            require_unchanged(path, identity)

    def close(self) -> None:
        """Close the source and inserted videos, if they are this one's own. Closing twice is allowed."""
        if self._owned:
            for video in self._videos():
                video.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return PlantedVideo, (self._source, self._insertions, self._files)

    def _videos(self) -> list[Video]:
        return [self._source, *(file for file in self._files.values() if not isinstance(file, str))]

    def _canvas(self, view: View) -> Canvas:
        native = self._source.meta.width, self._source.meta.height
        cut = region_box(*native, view.region or (0.0, 0.0, 1.0, 1.0))
        return Canvas(native, cut, view.output_size(*native))

    def _overlay(self, insertion: Insertion, number: int, canvas: Canvas, view: View) -> Overlay | None:
        if insertion.kind == "video":
            return patch_overlay(insertion, canvas, lambda: self._inset(insertion, number, canvas.native))
        if insertion.kind not in ("text", "image"):
            return shape_overlay(insertion, canvas)
        if len(self._overlays) > 64:
            self._overlays.clear()
        key = insertion, view
        if key not in self._overlays:
            self._overlays[key] = patch_overlay(insertion, canvas, lambda: self._patches[insertion])
        return self._overlays[key]

    def _still(self, insertion: Insertion) -> Patch:
        """A text or a picture at native size."""
        from videogym.video.planted.lettering import read_picture, text_patch

        size = patch_size(insertion, (self._source.meta.width, self._source.meta.height))
        path = self._files[insertion.file] if insertion.file else ""
        assert isinstance(path, str)
        if insertion.kind == "text":
            return text_patch(insertion.content, path, insertion.rgb, *size)
        return picture_patch(read_picture(path, size))

    def _inset(self, insertion: Insertion, number: int, native: tuple[int, int]) -> Patch:
        """The frame of an inserted video that goes with a frame of this one."""
        video, pts_s = self._files[insertion.file], self._source.pts_s
        assert not isinstance(video, str)
        time_s = insertion.start_s + float(pts_s[number] - pts_s[insertion.first])
        return picture_patch(video.frames_at([time_s], size=patch_size(insertion, native)).pixels[0])


def _drawn_text(insertions: tuple[Insertion, ...]) -> str:
    """What is drawn, whatever the files are called."""
    return canonical(tuple(replace(one, file=one.fingerprint) if one.file else one for one in insertions))


def open_planted(
    text: str, open_one: Callable[[str], Video], resolve: Callable[[str], str], *, owned: bool = True
) -> PlantedVideo:
    """Open a planted video.

    Args:
        text: its address.
        open_one: opens the videos it names.
        resolve: the path at which a picture or a font that it names may be read.
        owned: see `PlantedVideo`.

    Raises:
        InvalidAddress: the address cannot be read, or an insertion does not fit.
        VideoChanged: a file is not the one whose fingerprint the address holds.
        VideoError: a file is missing or unusable.
    """
    address = PlantedAddress.parse(text)
    opened: list[Video] = []
    try:
        source = _opened(address.source, address.content, open_one, opened)
        files: dict[str, Video | str] = {}
        for one in address.insertions:
            if one.kind == "video" and one.file not in files:
                files[one.file] = _opened(one.file, one.fingerprint, open_one, opened)
            elif one.file and one.file not in files:
                files[one.file] = _checked(os.path.abspath(resolve(one.file)), one.fingerprint)
        return PlantedVideo(source, address.insertions, files, owned=owned)
    except BaseException:  # Ctrl-C too: what is open is closed, whatever ends this
        if owned:
            for video in opened:
                video.close()
        raise


def _opened(path: str, content: str, open_one: Callable[[str], Video], opened: list[Video]) -> Video:
    video = open_one(path)
    opened.append(video)
    _require_same(path, video.meta.fingerprint, content)
    return video


def _checked(path: str, content: str) -> str:
    _require_same(path, fingerprint(path, identify(path).size), content)
    return path


def _require_same(path: str, found: str, due: str) -> None:
    if found != due:
        raise VideoChanged(
            f"{path}: its fingerprint is {found}, not {due}: it changed since something was planted into it"
        )
