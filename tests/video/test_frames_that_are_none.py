"""Packets that show no frame, and parts of a file that are shown at other times: what is shown counts."""

# ruff: noqa: D103

import contextlib
import os
import struct
from fractions import Fraction

import av
import numpy as np
import pytest
from av.bitstream import BitStreamFilterContext
from clips import RATE, new_packet, write_packets
from hypothesis import example, given
from hypothesis import strategies as st

from videogym.testing.coded_clips import read_code, write_clip
from videogym.testing.video_suite import check_video
from videogym.video import UnreadableVideo, open_video
from videogym.video.bitstream import EMPTY, HIDDEN, sense_of

COUNT = 60
HIDDEN_FRAMES = (10, 30, 45)


def linear(path):
    """Times in seconds and pixels of frames, from first to last, as libav gives them."""
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        frames = []
        for packet in container.demux(stream):
            with contextlib.suppress(av.FFmpegError):  # libav calls a sample without a picture an error
                for frame in packet.decode():
                    time_s = float(frame.pts * stream.time_base)
                    frames.append((time_s, frame.to_ndarray(format="rgb24")))
    return [t - frames[0][0] for t, _ in frames], [pixels for _, pixels in frames]


def check_against_linear(path, codes):
    times, pixels = linear(path)
    assert [read_code(p) for p in pixels] == codes, "the clip is not what it is to be"
    with open_video(str(path)) as video:
        np.testing.assert_allclose(video.pts_s, times, rtol=0, atol=1e-9)
        assert np.array_equal(video.frames_at(video.pts_s).pixels, np.stack(pixels))
    check_video(lambda: open_video(str(path)), codes, singles=8)


@pytest.mark.parametrize(("suffix", "early_ms"), [("webm", 0), ("mkv", 1)])
def test_hidden_frames_of_vp8(tmp_path, suffix, early_ms):
    """Alternate references stand before the frame after them, at its time or a millisecond earlier."""

    def timed(packets):
        shown = 0
        for i, packet in enumerate(packets):
            packet.time_base = Fraction(1, 1000)
            packet.pts = packet.dts = shown * 1000 // RATE
            shown += i not in HIDDEN_FRAMES
            if i in HIDDEN_FRAMES:
                data = bytes(packet)
                packets[i] = new_packet(packet, bytes([data[0] & ~0x10]) + data[1:])
                packets[i].pts = packets[i].dts = packet.pts - early_ms
        return packets

    path = tmp_path / f"a.{suffix}"
    write_packets(path, "libvpx", {"g": "20", "b": "400k"}, timed, COUNT)
    check_against_linear(path, [i for i in range(COUNT) if i not in HIDDEN_FRAMES])


@pytest.mark.parametrize("suffix", ["mp4", "mkv"])
def test_pictures_of_mpeg4_that_are_not_coded(tmp_path, suffix):
    def leave_out(packets):
        for i in HIDDEN_FRAMES:
            # P, no whole second passed, marker, 30ths of a second, marker, not coded; then stuffing.
            bits = f"0101{i % RATE:05b}10".ljust(16, "1")
            packets[i] = new_packet(packets[i], b"\0\0\1\xb6" + int(bits, 2).to_bytes(2))
        return packets

    path = tmp_path / f"a.{suffix}"
    options = {"g": "100", "b": "2M"}
    write_packets(path, "mpeg4", options, leave_out, COUNT)
    times, pixels = linear(path)
    assert len(times) == COUNT - len(HIDDEN_FRAMES), "the clip is not what it is to be"
    with open_video(str(path)) as video:
        assert video.pts_s.tolist() == pytest.approx(times, abs=1e-9)
        assert np.array_equal(video.frames_at(video.pts_s).pixels, np.stack(pixels))


@pytest.mark.parametrize("codec", ["libx264", "libx265"])
@pytest.mark.parametrize("suffix", ["mp4", "mkv"])
def test_samples_that_hold_no_picture(tmp_path, codec, suffix):
    """Only a message to the user (SEI), a delimiter (AUD), or filler, at times of their own."""
    units = {
        "libx264": [b"\x06\x05\x11" + b"\x22" * 16 + b"\x80", b"\x09\xf0", b"\x0c\xff\xff\x80"],
        "libx265": [b"\x4e\1\5\x11" + b"\x22" * 16 + b"\x80", b"\x46\1\x50", b"\x4c\1\xff\xff\x80"],
    }[codec]
    options = {
        "libx264": {"g": "20", "bf": "0"},
        "libx265": {"x265-params": "log-level=none:bframes=0:keyint=20"},
    }

    def add(packets):
        every = []
        for i, packet in enumerate(packets):
            packet.time_base /= 2
            packet.pts, packet.dts = 2 * packet.pts, 2 * packet.dts
            every.append(packet)
            if i in HIDDEN_FRAMES:
                more = new_packet(packet, b"\0\0\0\1" + units[HIDDEN_FRAMES.index(i)])
                more.pts, more.dts, more.is_keyframe = packet.pts + 1, packet.dts + 1, False
                every.append(more)
        return every

    path = tmp_path / f"a.{suffix}"
    write_packets(path, codec, options[codec], add, COUNT)
    check_against_linear(path, list(range(COUNT)))


def test_hidden_frames_of_av1(tmp_path):
    """In packets as they are written every one shows a frame; each frame by itself, some do not."""
    write_clip(tmp_path / "a.mp4", COUNT, codec="libsvtav1", codec_options={"preset": "12", "g": "30"})
    with av.open(str(tmp_path / "a.mp4")) as container:
        stream = container.streams.video[0]
        sense = sense_of("av1", stream.codec_context.extradata)
        packets = [packet for packet in container.demux(stream) if packet.size]
        assert len(packets) == COUNT
        assert not any(sense(memoryview(packet)) & HIDDEN for packet in packets)
        apart = BitStreamFilterContext("av1_frame_split", stream)
        single = [one for packet in packets for one in apart.filter(packet)]
    seen = [sense(memoryview(packet)) & HIDDEN for packet in single]
    assert len(single) > COUNT and seen.count(0) == COUNT


# The first byte of a frame of VP9: 10, profile (2), shows an old frame, is no keyframe, is shown, 0.
KEY, INTER, HIDDEN_INTER, OLD = 0b10000010, 0b10000110, 0b10000100, 0b10001000


def superframe(*frames):
    """Frames of 5 bytes in one packet: an index of sizes in one byte each stands at its end (annex B)."""
    mark = 0b11000000 | len(frames) - 1
    data = b"".join(bytes([first, 1, 2, 3, 4]) for first in frames)
    return data + bytes([mark, *[5] * len(frames), mark])


@pytest.mark.parametrize(
    ("packet", "seen"),
    [
        (bytes([KEY, 1, 2]), 0),
        (bytes([INTER, 1, 2]), 0),
        (bytes([OLD]), 0),
        (bytes([HIDDEN_INTER, 1, 2]), HIDDEN),
        (superframe(HIDDEN_INTER, INTER), 0),
        (superframe(HIDDEN_INTER, OLD), 0),
        (superframe(HIDDEN_INTER, HIDDEN_INTER), HIDDEN),
    ],
)
def test_hidden_frames_of_vp9(packet, seen):
    assert sense_of("vp9", b"")(memoryview(packet)) == seen


@given(
    st.sampled_from(["h264", "hevc", "mpeg1video", "mpeg2video", "mpeg4", "vp8", "vp9", "av1", "none"]),
    st.binary(max_size=60),
    st.lists(st.binary(min_size=1, max_size=60), max_size=4),
)
@example("av1", b"\0\0\0\0\2", [])
@example("h264", b"\1", [b"\1"])
def test_no_bytes_make_a_reader_of_packets_fail(codec, extradata, packets):
    sense = sense_of(codec, extradata)
    for packet in packets:
        for start in (b"", b"\0\0\1", b"\0\0\1\xb6", b"\0\0\1\0", b"\0\0\0\4"):
            assert 0 <= sense(memoryview(start + packet)) < 128


def test_no_picture_is_not_a_hidden_one():
    sense = sense_of("h264", b"")
    assert sense(memoryview(b"\0\0\1\x09\xf0")) == EMPTY


# --- a cut without encoding ------------------------------------------------------------------------

COUNT_CUT = 90
TICKS = 512  # of a frame at 30 a second, in MP4 as libav writes it


def cut(path, edits):
    """A clip with keyframes every 20 frames, of which so many ms from such a frame are shown."""
    write_clip(path, COUNT_CUT, codec_options={"bf": "2", "g": "20"})
    data = bytearray(path.read_bytes())
    place = data.index(b"elst") - 4
    (size,) = struct.unpack_from(">I", data, place)
    rows = b"".join(struct.pack(">Iihh", ms, 2 * TICKS + TICKS * frame, 1, 0) for frame, ms in edits)
    body = struct.pack(">I4sII", 16 + len(rows), b"elst", 0, len(edits)) + rows
    data[place : place + size] = body
    for box in (b"moov", b"trak", b"edts"):
        at = data.index(box) - 4
        (old,) = struct.unpack_from(">I", data, at)
        struct.pack_into(">I", data, at, old + len(body) - size)
    path.write_bytes(data)


CUTS = {
    "from a keyframe on": ([(0, 500), (40, 500)], [*range(15), *range(40, 55)]),
    "from between keyframes on": ([(0, 500), (45, 500)], [*range(15), *range(45, 60)]),
    "twice the same": ([(0, 500), (0, 500)], [*range(15), *range(15)]),
    "three parts": ([(0, 500), (60, 500), (40, 500)], [*range(15), *range(60, 75), *range(40, 55)]),
    "from a later part to an earlier one": ([(60, 500), (0, 500)], [*range(60, 75), *range(15)]),
}


@pytest.mark.parametrize("name", CUTS)
def test_a_cut_without_encoding(tmp_path, name):
    edits, codes = CUTS[name]
    path = tmp_path / "cut.mp4"
    cut(path, edits)
    times, pixels = linear(path)
    with open_video(str(path)) as video:
        batch = video.frames_at(video.pts_s)
        assert [read_code(p) for p in batch.pixels] == codes == [read_code(p) for p in pixels]
        np.testing.assert_allclose(video.pts_s, times, rtol=0, atol=1e-9)
        for i in np.random.default_rng(0).permutation(len(codes)):
            assert read_code(video.frames_at([video.pts_s[i]]).pixels[0]) == codes[i]
    check_video(lambda: open_video(str(path)), codes, singles=8)


def test_parts_in_which_the_clock_jumps_back_are_still_refused(tmp_path):
    for first in (0, 30):
        write_clip(tmp_path / f"{first}.ts", 30, codec_options={"g": "10"}, first=first)
    (tmp_path / "a.ts").write_bytes((tmp_path / "0.ts").read_bytes() + (tmp_path / "30.ts").read_bytes())
    with pytest.raises(UnreadableVideo, match="jumps back"):
        open_video(str(tmp_path / "a.ts"))


def test_encoding_leaves_no_real_time_priority_behind(tmp_path):
    """As root libsvtav1 makes the thread that opens it a real-time one."""
    if not hasattr(os, "sched_getscheduler"):
        pytest.skip("this system has no scheduling policies")
    before = os.sched_getscheduler(0)
    write_clip(tmp_path / "a.mp4", 5, codec="libsvtav1", codec_options={"preset": "12"})
    assert os.sched_getscheduler(0) == before
