"""The default backend: PyAV, exact on every file that libav decodes.

How much it saves depends on the file. On an hour of 360p H.264 in groups of 250 it takes less than a
third of decord's CPU time; on 1080p H.264 and HEVC in groups of 60 about two thirds; on VP9, of which no
frame can be left out, the same. ``make bench`` measures all of them.

It seeks once per group of pictures, decodes forward, never decodes frames that nothing refers to and
nobody asked for, and converts and resizes in one call only what was asked for. Frames are found by
their timestamps, never by counting.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import av
import numpy as np
from av.stream import Discard
from av.video.frame import PictureType
from numpy.typing import NDArray

from videogym.video.bitstream import EMPTY, sense_of
from videogym.video.file_video import FileVideo
from videogym.video.packets import PacketTable
from videogym.video.pixels import Renderer, View
from videogym.video.scan import open_container, packets_of, video_stream
from videogym.video.types import DecodeTimeout, TruncatedVideo

# Decoders that drop exactly the frames nothing refers to; libdav1d would drop wanted ones.
_SKIPS_NONREF = ("h264", "hevc")
_PATIENCE = 16  # frames after the last wanted one; more than any decoder delivers out of order
_PREDICTED = (PictureType.P, PictureType.B)


@dataclass
class Stats:
    """What reading has cost so far."""

    opens: int = 0  # times the decoder was opened
    seeks: int = 0
    packets: int = 0  # packets given to the decoder
    decoded: int = 0  # frames that came out of it
    rendered: int = 0  # frames converted to RGB


class PyAVVideo(FileVideo):
    """A video file decoded with PyAV; the decoder is opened by the first read.

    Attributes:
        stats: counters of packets, seeks and frames since the video was opened.
    """

    backend = "pyav"

    def __init__(self, path: str, *, cache_dir: str | Path | None = None, deadline_s: float = 60.0) -> None:
        super().__init__(path, cache_dir=cache_dir, deadline_s=deadline_s)
        self.stats = Stats()
        self._decoder: _Decoder | None = None
        self._renderer = Renderer(self._table.orientation, (self._table.width, self._table.height))

    def _read(self, ordinals: NDArray[np.intp], view: View) -> NDArray[np.uint8]:
        if self._decoder is None:
            self._decoder = _Decoder(self._path, self._table, self.stats, self._options["deadline_s"])
        width, height = view.output_size(self._meta.width, self._meta.height)
        pixels = np.empty((len(ordinals), height, width, 3), dtype=np.uint8)
        rows = {int(ordinal): row for row, ordinal in enumerate(ordinals)}
        for ordinal, frame in self._decoder.frames(list(rows)):
            pixels[rows[ordinal]] = self._renderer.render(frame, view)
            self.stats.rendered += 1
        return pixels

    def _release(self) -> None:
        decoder, self._decoder = self._decoder, None
        if decoder is not None:
            decoder.close()


class _Damage(Exception):
    """A picture between the keyframe and the target is broken."""


class _NoEntry(Exception):
    """What the container calls a keyframe is none: a recovery point of gradual refresh, say."""


class _Decoder:
    """An open file, a decoder, and where it stands."""

    _packets: Iterator[Any]
    _group: int | None  # keyframe that decoding started from; None: must seek
    _last_out: int | None  # ticks of the newest frame that came out since
    _passed: set[int]  # ticks of later frames that were let go
    _inside: dict[int, int]  # ticks of frames that have not come out: how many went in before
    _held: list[Any]  # frames that came out and were not looked at

    def __init__(self, path: str, table: PacketTable, stats: Stats, deadline_s: float) -> None:
        self._path, self._table, self._stats = path, table, stats
        self._deadline_s, self._due = deadline_s, 0.0
        self._open()
        self._sense = sense_of(table.codec, self._stream.codec_context.extradata)
        self._may_skip = table.codec in _SKIPS_NONREF
        self._seeks_by_dts = table.container == "mpegts"
        self._stand(None, iter(()), None)

    def _open(self) -> None:
        self._container = open_container(self._path)
        self._stream = video_stream(self._container, self._path)
        for stream in self._container.streams:
            if stream is not self._stream:
                stream.discard = Discard.all
        self._stats.opens += 1

    def close(self) -> None:
        """Close the file; libav's objects refer to each other and would stay until a collection."""
        self._packets = iter(())
        self._container.close()

    def frames(self, ordinals: list[int]) -> Iterator[tuple[int, Any]]:
        """Decode ascending frames.

        Yields:
            Ordinal and decoded frame; the frame is valid until the next one.

        Raises:
            TruncatedVideo: one of them cannot be had.
            DecodeTimeout: one of them took longer than the deadline.
        """
        self._due = time.monotonic() + self._deadline_s
        for key, group in itertools.groupby(ordinals, key=lambda i: int(self._table.key_of[i])):
            yield from self._group_frames(key, {int(self._table.pts[i]): i for i in group})

    def _group_frames(self, key: int, wanted: dict[int, int]) -> Iterator[tuple[int, Any]]:
        """Frames of one group of pictures, from an earlier keyframe if this one does not lead to them."""
        start, step, first = key, 1, self._table.first_of_part(key)
        asked = dict(wanted)
        while True:
            damage: Exception | None = None
            try:
                yield from self._forward(start, wanted)
            except _NoEntry:
                pass
            except (av.FFmpegError, _Damage) as error:
                damage = error
                # A decoder that has failed can give a frame of before after seeking.
                self.close()
                self._open()
                wanted.update(asked)  # what came out before it may refer to it
            if not wanted:
                return
            # Damage costs one more group, in case the keyframe was none; a search goes on.
            if start == first or (damage and start < key):
                time_s = self._table.pts_s[min(wanted.values())]
                cause = f" ({damage})" if damage else ""
                raise TruncatedVideo(
                    f"{self._path}: the frame at {time_s:.3f} s cannot be decoded{cause}"
                ) from damage
            start, step = max(first, start - step), step * 2

    def _forward(self, start: int, wanted: dict[int, int]) -> Iterator[tuple[int, Any]]:
        """Decode on from a keyframe, or from where we are, until all wanted frames came out.

        Ends early when frames come that should be behind them.
        """
        if self._group != start or self._is_behind(wanted):
            self._seek(start)
        self._group = None  # until this pass has ended well
        # The first group may open with pictures that are shown before its keyframe.
        key = int(
            min(self._table.keys[start], self._table.pts[0]) if start == 0 else self._table.keys[start]
        )
        last, too_late, newest = max(wanted), 0, -1
        for frames in itertools.chain([self._let_go()], self._decoded(wanted, key)):
            if any(frame.is_corrupt for frame in frames):
                raise _Damage("a damaged picture")
            for frame in frames:
                if self._last_out is None and start > 0:
                    self._require_entry(frame, start)
                self._last_out = frame.pts
                too_late += frame.pts > last
                if frame.pts in wanted:
                    newest = max(newest, self._inside.get(frame.pts, -1))
                    yield wanted.pop(frame.pts), frame
                    self._due = time.monotonic() + self._deadline_s
            if not wanted:
                can_go_on = self._require_sound(newest, key)
                shown = self._last_out or 0
                self._passed = {pts for pts in self._passed if pts > shown}
                self._inside = {pts: i for pts, i in self._inside.items() if pts > shown}
                self._group = start if can_go_on else None
                return
            if too_late > _PATIENCE:
                return

    def _decoded(self, wanted: dict[int, int], key: int) -> Iterator[list[Any]]:
        for packet in self._packets:
            yield self._decode(packet, packet.pts in wanted, key)

    def _let_go(self) -> list[Any]:
        frames, self._held = self._held, []
        return frames

    def _require_sound(self, newest: int, key: int) -> bool:
        """What went in before the wanted frames must be whole, also where it is shown after them.

        A B-frame comes out before the later frame that it refers to, and only there is damage told: but by
        HEVC's decoder, which is strict and tells it at once.

        Returns:
            Whether reading can go on from here.
        """
        if self._table.codec == "hevc":
            return True
        shown = self._last_out or 0
        awaited = max((pts for pts, i in self._inside.items() if i < newest and pts > shown), default=shown)
        while shown < awaited and len(self._held) <= _PATIENCE:
            packet = next(self._packets, None)
            try:
                self._held += [] if packet is None else self._decode(packet, True, key)
            except av.FFmpegError:
                packet = None
            if packet is None:
                return False
            shown = max([shown, *(frame.pts for frame in self._held)])
        if any(frame.is_corrupt and self._inside.get(frame.pts, newest) < newest for frame in self._held):
            raise _Damage("a damaged picture")
        return True

    def _is_behind(self, wanted: dict[int, int]) -> bool:
        """Whether a wanted frame has already gone by."""
        if self._last_out is None or min(wanted) <= self._last_out:
            return True
        return not self._passed.isdisjoint(wanted)

    def _require_entry(self, frame: Any, start: int) -> None:
        """The keyframe itself must come out first, unless it is not shown, and need no other."""
        key = self._table.keys[start]
        place = self._table.pts.searchsorted(key)
        is_hidden = self._table.pts[place] != key or self._table.key_of[place] != start
        if not is_hidden and (frame.pts != key or frame.pict_type in _PREDICTED):
            raise _NoEntry

    def _decode(self, packet: Any, is_wanted: bool, key: int) -> list[Any]:
        """Frames that a packet brings out, from the keyframe on."""
        if packet.pts is not None:
            self._inside[packet.pts] = self._stats.packets
            if not is_wanted:
                self._passed.add(packet.pts)
        if self._may_skip:
            needed = is_wanted or packet.pts == key
            self._stream.codec_context.skip_frame = "DEFAULT" if needed else "NONREF"
        self._stats.packets += packet.size > 0
        try:
            frames = packet.decode()
        except av.FFmpegError:
            # Pictures shown before the keyframe may refer to what lies before it; we do without them.
            if packet.pts is not None and packet.pts < key:
                return []
            if self._sense(memoryview(packet)) & EMPTY:
                return []
            raise
        self._stats.decoded += len(frames)
        return [frame for frame in frames if frame.pts is not None and frame.pts >= key]

    def _seek(self, start: int) -> None:
        """Go to a keyframe; libav's idea of a timestamp differs by container, so look where it lands."""
        if len(self._table.parts) > 1:
            self._count_to(start)
            return
        by_pts, by_dts = self._table.keys, self._table.key_dts
        if self._seeks_by_dts:
            by_pts, by_dts = by_dts, by_pts
        if self._lands(int(by_pts[start]), start):
            return
        if self._lands(int(by_dts[start]), start):
            self._seeks_by_dts = not self._seeks_by_dts
            return
        step = 1
        while start - step > 0:
            if self._lands(int(self._table.key_dts[start - step]), start):
                return
            step *= 2
        if not self._lands(int(self._table.key_dts[0]), start):
            raise TruncatedVideo(f"{self._path}: cannot go back to its first keyframe")

    def _lands(self, ticks: int, start: int) -> bool:
        """Seek, then drop packets up to a keyframe; false when that one lies after the wanted."""
        first, packets = self._keyframe_at(ticks)
        if first is None or first.pts > self._table.keys[start]:
            return False
        self._stand(first, packets, start)
        return True

    def _count_to(self, start: int) -> None:
        """Go to a keyframe of a file in which time runs anew: seeking cannot tell its parts apart."""
        first, packets = self._keyframe_at(int(self._table.key_dts[0]))
        if first is None or first.pts != self._table.keys[0]:
            raise TruncatedVideo(f"{self._path}: cannot go back to its first keyframe")
        keyframes = (packet for packet in packets if packet.is_keyframe and packet.pts is not None)
        self._stand(next(itertools.islice(keyframes, start - 1, None)) if start else first, packets, start)

    def _keyframe_at(self, ticks: int) -> tuple[Any, Iterator[Any]]:
        """The first keyframe after seeking, or None, and the packets after it."""
        self._container.seek(ticks, stream=self._stream)
        self._stats.seeks += 1
        packets = self._in_time(packets_of(self._container, self._stream))
        return next((p for p in packets if p.is_keyframe and p.pts is not None), None), packets

    def _stand(self, packet: Any, packets: Iterator[Any], start: int | None) -> None:
        self._packets = itertools.chain([packet], packets)
        self._group, self._last_out = start, None
        self._passed, self._inside, self._held = set(), {}, []

    def _in_time(self, packets: Iterator[Any]) -> Iterator[Any]:
        for packet in packets:
            if time.monotonic() > self._due:
                raise DecodeTimeout(
                    f"{self._path}: a frame was not decoded within {self._deadline_s:.1f} s"
                )
            yield packet
