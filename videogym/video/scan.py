"""One pass over a file's packet headers: which frames it shows, and whether it is usable at all.

No video stream, a cut-off end, timestamps that cannot be trusted: all of it is found here, when a
file is opened for the first time, and is a typed error. Nothing is decoded but the first few frames.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import av
import numpy as np
from numpy.typing import NDArray

from videogym.video.bitstream import sense_of
from videogym.video.containers import CONTAINERS
from videogym.video.headers import Doubled, Headers, Jumps, arrange
from videogym.video.orientation import orientation_of
from videogym.video.packets import PacketTable
from videogym.video.types import NoVideoStream, TruncatedVideo, UnreadableVideo, VideoTooLarge

MOST_PIXELS = 8192 * 4352  # 8K, of which a decoder may keep a dozen and more

_COVER = av.stream.Disposition.attached_pic
_DEFAULT = av.stream.Disposition.default
# MP4's index says more, and the length of an MPEG stream is taken from its own end.
_TELL_LENGTH = ("matroska,webm", "avi", "flv", "asf", "ogg")
_MISSING_END_S = 1.0
_AVI_OPENING = 8  # frames whose order is looked at


def open_container(path: str) -> Any:
    """Open a file with libav, regular containers only.

    Raises:
        UnreadableVideo: libav does not know what it is.
    """
    try:
        return av.open(
            path,
            options={"max_pixels": str(MOST_PIXELS)},  # of frames that are decoded to find out what it is
            container_options={"format_whitelist": CONTAINERS, "protocol_whitelist": "file"},
            metadata_errors="replace",
        )
    except (av.FFmpegError, OSError) as error:
        raise UnreadableVideo(f"{path}: not a video that can be opened ({error.strerror})") from error


def video_stream(container: Any, path: str) -> Any:
    """The video stream that libav takes for the film, with a strict single-threaded decoder.

    Raises:
        NoVideoStream: there is none, or only a cover picture.
        UnreadableVideo: there is no decoder for it.
        VideoTooLarge: its pictures are.
    """
    stream = _best_stream(container)
    if stream is None:
        raise NoVideoStream(f"{path}: holds no video stream")
    if stream.codec_context is None:
        raise UnreadableVideo(f"{path}: no decoder for its video stream")
    stream.codec_context.thread_count = 1
    stream.codec_context.thread_type = "NONE"
    if _pixel_count(stream) > MOST_PIXELS:
        size = f"{stream.width}x{stream.height}"
        raise VideoTooLarge(f"{path}: pictures of {size}, at most {MOST_PIXELS} pixels are decoded")
    options = {"max_pixels": str(MOST_PIXELS)}  # whatever size a later frame tells
    if stream.codec_context.name == "hevc":
        # Otherwise a damaged slice is patched with guessed pixels and nobody is told. The H.264 decoder
        # tells by itself, and with this option also calls the start of an open group damaged.
        options["err_detect"] = "explode"
    stream.codec_context.options = options
    return stream


def _best_stream(container: Any) -> Any:
    """The stream that players show, which need not be the first: a picture or a preview may precede it.

    Where libav would take a cover picture: of the others, a default one, then the largest, as ffmpeg does.
    """
    videos = [stream for stream in container.streams.video if not stream.disposition & _COVER]
    best = container.streams.best("video")
    if best in videos or not videos:
        return best if videos else None
    return max(videos, key=lambda stream: (bool(stream.disposition & _DEFAULT), _pixel_count(stream)))


def _pixel_count(stream: Any) -> int:
    return stream.width * stream.height if stream.codec_context is not None else 0


def unshown_streams(path: str, *, covers: bool) -> list[str]:
    """The video streams of a file that are not shown, in words.

    Args:
        path: of a file that can be opened.
        covers: whether pictures that are marked as covers are told, too.

    Raises:
        VideoError: it cannot be opened any more.
    """
    with open_container(path) as container:
        shown = _best_stream(container)
        others = [stream for stream in container.streams.video if stream is not shown]
        return [_in_words(stream) for stream in others if covers or not stream.disposition & _COVER]


def _in_words(stream: Any) -> str:
    codec = stream.codec_context
    what = f"{codec.name}, {stream.width}x{stream.height}" if codec is not None else "no decoder"
    return f"stream {stream.index} ({what}{', a cover' if stream.disposition & _COVER else ''})"


def packets_of(container: Any, *streams: Any) -> Iterator[Any]:
    """Packets of some streams, or of all, from where the container stands.

    A transport stream may bring further streams on its way. PyAV leaves those out, and stumbles over them
    when it has given all others.
    """
    try:
        yield from container.demux(*streams)
    except IndexError:
        pass


def scan(path: str) -> PacketTable:
    """Read every packet header of a file and decode its first frames.

    Raises:
        UnreadableVideo: it is no video, nothing in it can be decoded or its timestamps are unusable.
        NoVideoStream: it holds no video stream.
        TruncatedVideo: it ends before its own index says.
    """
    with open_container(path) as container:
        stream = video_stream(container, path)
        try:
            headers = _read_headers(container, stream)
        except av.FFmpegError as error:
            raise UnreadableVideo(f"{path}: damaged ({error.strerror})") from error
        if headers.first is None:
            raise UnreadableVideo(f"{path}: no frame of it can be decoded")
        _require_complete(container, stream, headers, path)
        table = _table(container, stream, headers, path)
        _require_way_back(container, stream, table, path)
        return table


def _read_headers(container: Any, stream: Any) -> Headers:
    codec = stream.codec_context
    headers = Headers(sense_of(codec.codec.canonical_name, codec.extradata))
    opening = _AVI_OPENING if container.format.name == "avi" else 1
    for packet in packets_of(container):
        if packet.pts is not None:
            index, end = packet.stream_index, packet.pts + (packet.duration or 0)
            headers.ends[index] = max(headers.ends.get(index, end), end)
        if packet.stream is not stream:
            continue
        if packet.size:
            headers.add(packet)
        if len(headers.opening) < opening and headers.keys:
            for frame in _decoded(packet):
                headers.first = headers.first or frame
                headers.untimed += frame.pts is None
                headers.opening.append(frame.pts or 0)
    return headers


def _decoded(packet: Any) -> list[Any]:
    """Frames that a packet brings out; none where it is damaged or refers to lost ones."""
    try:
        return list(packet.decode())
    except av.FFmpegError:
        return []


def _require_complete(container: Any, stream: Any, headers: Headers, path: str) -> None:
    index = stream.index_entries
    promised = index[-1].pos + index[-1].size if len(index) else 0
    if promised > container.size:
        raise TruncatedVideo(
            f"{path}: its index reaches to byte {promised}, the file ends at byte {container.size}"
        )
    if headers.cut:
        raise TruncatedVideo(f"{path}: the last frame in it is incomplete")
    end_s = max(float(end * container.streams[i].time_base) for i, end in headers.ends.items())
    length_s = (container.duration or 0) / av.time_base
    if container.format.name in _TELL_LENGTH and length_s - end_s > _MISSING_END_S:
        raise TruncatedVideo(f"{path}: promises {length_s:.1f} s, its packets end at {end_s:.1f} s")


def _require_way_back(container: Any, stream: Any, table: PacketTable, path: str) -> None:
    """A reader that cannot go back to the first keyframe can serve nothing; be told before one plays."""
    for ticks in (table.keys[0], table.key_dts[0]):
        with suppress(av.FFmpegError):
            container.seek(int(ticks), stream=stream)
            back = (p.pts for p in packets_of(container, stream) if p.is_keyframe and p.pts is not None)
            if next(back, table.end) <= table.keys[0]:
                return
    kind = container.format.name
    raise UnreadableVideo(
        f"{path}: its timestamps are others after seeking ({table.codec} in {kind}); convert it to MP4"
    )


def _table(container: Any, stream: Any, headers: Headers, path: str) -> PacketTable:
    codec = stream.codec_context.codec.canonical_name
    if headers.untimed:
        raise UnreadableVideo(f"{path}: some of its frames have no timestamp")
    # AVI has no presentation times. libav guesses them, wrongly for H.264 with B-frames.
    if headers.opening != sorted(headers.opening):
        raise UnreadableVideo(
            f"{path}: its frames are shown in an order that AVI cannot tell; remux it to MP4"
        )
    try:
        frames = arrange(headers, codec)
    except Jumps:
        raise UnreadableVideo(f"{path}: its clock jumps back, as after joining files; convert it") from None
    except Doubled:
        raise UnreadableVideo(f"{path}: two of its frames have the same timestamp") from None
    return PacketTable(
        pts=frames.pts,
        key_of=frames.key_of,
        lost=frames.lost,
        doubtful=frames.doubtful,
        keys=np.array(headers.keys, dtype=np.int64),
        key_dts=np.array(headers.key_dts, dtype=np.int64),
        parts=np.array(headers.parts, dtype=np.int64),
        end=int(frames.pts[-1]) + _last_duration(frames.pts, frames.last_duration, stream),
        tick=(stream.time_base.numerator, stream.time_base.denominator),
        width=headers.first.width,
        height=headers.first.height,
        orientation=orientation_of(headers.first, path),
        codec=codec,
        container=container.format.name,
        open_groups=headers.open_groups,
    )


def _last_duration(shown: NDArray[np.int64], told: int, stream: Any) -> int:
    if told > 0:
        return told
    if len(shown) > 1:
        return max(1, round((int(shown[-1]) - int(shown[0])) / (len(shown) - 1)))
    rate = stream.average_rate or stream.guessed_rate or 25
    return max(1, round(1 / (rate * stream.time_base)))
