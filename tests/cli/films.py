"""Thirty files: fifteen that are sound, however odd, and fifteen that are bad, each in its own way."""

from __future__ import annotations

import os
import struct
from collections.abc import Callable, Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np

from videogym.testing.coded_clips import copy_stream, write_clip

COUNT, RATE = 160, 30
X264 = {"g": "50", "bf": "3", "preset": "veryfast", "crf": "23"}
PLAYED_OFTEN = 10_000  # edits, each of which shows the whole film again

Maker = Callable[[Path], object]


def film(path: Path, count: int = COUNT, **how: Any) -> bytes:
    """A sound clip, and its bytes."""
    write_clip(path, count, rate=RATE, **({"codec_options": X264} | how))
    return path.read_bytes()


# --- sound ---------------------------------------------------------------------------------------


def variable(path: Path) -> None:
    """Frames 20 to 400 ms apart."""
    steps = np.random.default_rng(0).choice((20, 33, 100, 400), COUNT - 1)
    film(path, pts=[0, *np.cumsum(steps).tolist()], time_base=Fraction(1, 1000))


def gap(path: Path) -> None:
    """No new frame from 2.63 s to 40 s."""
    pts = [33 * i for i in range(80)]
    film(path, 160, pts=[*pts, *(40_000 + t for t in pts)], time_base=Fraction(1, 1000))


def turned(path: Path) -> None:
    """Shown upright by a player that turns it."""
    film(whole := path.with_name(".whole.mp4"))
    copy_stream(whole, path, rotation=90)
    whole.unlink()


def cut_by_copy(path: Path) -> None:
    """The run-up to frame 68 is in the file and is not shown."""
    film(whole := path.with_name(".whole.mp4"))
    copy_stream(whole, path, start_ticks=68 * 15360 // RATE)
    whole.unlink()


SOUND: dict[str, Maker] = {
    "film.mp4": film,
    "film.mkv": film,
    "film.ts": film,
    "film.mov": film,
    "UPPER.MP4": film,
    "a name with  spaces, é 日本語 and 'quotes'.mp4": film,
    "fragmented.mp4": lambda path: film(path, muxer_options={"movflags": "frag_keyframe+empty_moov"}),
    "variable.mp4": variable,
    "gap.mp4": gap,
    "turned.mp4": turned,
    "cut by copy.mp4": cut_by_copy,
    "one keyframe.mp4": lambda path: film(path, 700, codec_options=X264 | {"g": "9999"}),
    "film.webm": lambda path: film(
        path, codec="libvpx-vp9", codec_options={"g": "50", "cpu-used": "8", "deadline": "realtime"}
    ),
    "old.avi": lambda path: film(path, codec="mpeg4", codec_options={"g": "25", "b": "2M"}),
    "two frames.mp4": lambda path: film(path, 2),
}
NOTES = {
    "variable.mp4": {"variable_rate"},
    "gap.mp4": {"variable_rate", "gap"},
    "turned.mp4": {"rotated"},
    "one keyframe.mp4": {"huge_group"},
}

# --- bad -----------------------------------------------------------------------------------------


def no_index(path: Path) -> None:
    """A download that broke off: the index would have come last."""
    data = film(path)
    path.write_bytes(data[: len(data) // 2])


def truncated(path: Path) -> None:
    """A download that broke off: the index came first."""
    data = film(path, muxer_options={"movflags": "faststart"})
    path.write_bytes(data[: int(len(data) * 0.6)])


def sound_alone(path: Path) -> None:
    """A second of silence."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("aac", rate=16_000, layout="mono")
        for i in range(16):
            samples = np.zeros((1, 1024), np.float32)
            frame = av.AudioFrame.from_ndarray(samples, format="fltp", layout="mono")
            frame.sample_rate, frame.pts = 16_000, 1024 * i
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))


def unknown_codec(path: Path) -> None:
    """A codec that nobody has heard of."""
    path.write_bytes(film(path).replace(b"avc1", b"zzzz"))


def no_keyframe(path: Path) -> None:
    """All packets but the keyframes."""
    film(whole := path.with_name(".whole.mp4"))
    with av.open(str(whole)) as old, av.open(str(path), "w") as new:
        stream = new.add_stream_from_template(old.streams.video[0])
        for packet in old.demux(video=0):
            if packet.size and not packet.is_keyframe:
                packet.stream = stream
                new.mux(packet)
    whole.unlink()


def no_time(path: Path) -> None:
    """Every frame at 0 s."""
    data = bytearray(film(path, codec_options=X264 | {"bf": "0"}))
    table = data.index(b"stts")
    (entries,) = struct.unpack_from(">I", data, table + 8)
    for i in range(entries):
        struct.pack_into(">I", data, table + 16 + 8 * i, 0)
    path.write_bytes(data)


def joined(path: Path) -> None:
    """Two transport streams, one after the other."""
    path.write_bytes(film(path) * 2)


def avi_without_order(path: Path) -> None:
    """H.264 with frames out of order, in a container that cannot tell it."""
    film(path, 40)


def noise_inside(path: Path) -> None:
    """Noise over frames 60 to 89, inside the group of pictures from 50 to 99."""
    data = bytearray(film(path))
    with av.open(str(path)) as container:
        packets = [(p.pos, p.size) for p in container.demux(video=0) if p.size]
    noise = np.random.default_rng(3)
    for position, size in packets[60:90]:
        data[position + 5 : position + size] = noise.bytes(size - 5)
    path.write_bytes(data)


def ruined(path: Path) -> None:
    """An index as it should be, and zeros where the pictures were."""
    data = bytearray(film(path))
    start = data.index(b"mdat") + 4
    data[start : data.index(b"moov") - 4] = bytes(data.index(b"moov") - 4 - start)
    path.write_bytes(data)


def ruined_avi(path: Path) -> None:
    """The same in a container that keeps its own marks of keyframes."""
    data = bytearray(film(path, codec="mpeg4", codec_options={"g": "25", "b": "2M"}))
    with av.open(str(path)) as container:
        packets = [(p.pos + 8, p.size) for p in container.demux(video=0) if p.size]
    for position, size in packets:
        data[position : position + size] = bytes(size)
    path.write_bytes(data)


def tilted(path: Path) -> None:
    """To be turned by 45 degrees."""
    data = film(path)
    upright = struct.pack(">9i", 1 << 16, 0, 0, 0, 1 << 16, 0, 0, 0, 1 << 30)
    leaning = struct.pack(">9i", 46341, 46341, 0, -46341, 46341, 0, 0, 0, 1 << 30)
    place = data.index(upright, data.index(b"tkhd"))
    path.write_bytes(data[:place] + leaning + data[place + len(leaning) :])


def untimed(path: Path) -> None:
    """Every third frame without a time."""
    data, packets = bytearray(film(path)), 0
    for start in range(0, len(data), 188):
        place = data.find(b"\0\0\1\xe0", start, start + 188) if data[start + 1] & 0x40 else -1
        if place >= 0:
            packets += 1
            if packets % 3 == 0:
                data[place + 7] &= 0x3F  # the flags that say which times follow
    path.write_bytes(data)


def doubled(path: Path) -> None:
    """Two pairs of frames with one time each."""
    film(path, codec_options=X264 | {"bf": "0"})
    data = path.read_bytes()
    with av.open(str(path)) as container:
        blocks = [packet.pos for packet in container.demux(video=0) if packet.size]
    patched = bytearray(data)
    for number in (70, 90):
        place, before = blocks[number], blocks[number - 1]
        # In a SimpleBlock two bytes of time follow the number of the track.
        patched[place + 1 : place + 3] = data[before + 1 : before + 3]
    path.write_bytes(patched)


def played_for_ever(path: Path) -> None:
    """142 kB with a list of edits by which the film is shown ten thousand times: minutes of reading."""

    def boxes(data: bytes) -> Iterator[tuple[bytes, bytes]]:
        while data:
            length, kind = struct.unpack_from(">I4s", data)
            yield kind, data[8:length]
            data = data[length:]

    def again(kind: bytes, body: bytes) -> bytes:
        if kind in (b"moov", b"trak", b"edts"):
            body = b"".join(again(*box) for box in boxes(body))
        elif kind == b"elst":
            body = body[:4] + struct.pack(">I", PLAYED_OFTEN) + body[8:20] * PLAYED_OFTEN
        return struct.pack(">I4s", len(body) + 8, kind) + body

    path.write_bytes(b"".join(again(*box) for box in boxes(film(path))))


BAD: dict[str, tuple[str, Maker]] = {  # by the cause that is to be named
    "nothing.mp4": ("empty", lambda path: path.touch()),
    "not found.mp4": ("not_video", lambda path: path.write_text("<!DOCTYPE html>\n<h1>404</h1>\n" * 90)),
    "broken off.mp4": ("no_index", no_index),
    "cut.mp4": ("truncated", truncated),
    "speech.mp4": ("no_video_stream", sound_alone),
    "future.mp4": ("codec", unknown_codec),
    "headless.mkv": ("no_keyframe", no_keyframe),
    "timeless.mp4": ("zero_duration", no_time),
    "joined.ts": ("clock_jumps", joined),
    "disorder.avi": ("avi_order", avi_without_order),
    "noisy.mp4": ("damaged_frames", noise_inside),
    "leaning.mp4": ("tilted", tilted),
    "still.mp4": ("too_short", lambda path: film(path, 1)),
    "lost.mp4": ("dangling_link", lambda path: path.symlink_to("/mnt/gone/lost.mp4")),
    "pipe.mp4": ("special", lambda path: os.mkfifo(path)),
}
MORE: dict[str, tuple[str, Maker]] = {
    "pointer.mp4": (
        "not_video",
        lambda path: path.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 9\n"),
    ),
    "noise.mkv": ("not_video", lambda path: path.write_bytes(np.random.default_rng(0).bytes(50_000))),
    "list.m3u8.mp4": ("not_video", lambda path: path.write_text("#EXTM3U\n#EXTINF:1,\n/etc/passwd\n")),
    "text.mp4": ("not_video", lambda path: path.write_text("no vidéo\n" * 700)),
    "zeros.mp4": ("not_video", lambda path: path.write_bytes(bytes(9999))),
    "untimed.ts": ("no_timestamps", untimed),
    "doubled.mkv": ("equal_timestamps", doubled),
    "overwritten.mp4": ("no_keyframe", ruined),
    "ruined.avi": ("undecodable", ruined_avi),
    "folder.mp4": ("folder", lambda path: path.mkdir()),
    "circle.mp4": ("dangling_link", lambda path: path.symlink_to(path.name)),
}


def fill(folder: Path) -> None:
    """The thirty files."""
    for name, make in SOUND.items():
        make(folder / name)
    for name, (_, make) in BAD.items():
        make(folder / name)
