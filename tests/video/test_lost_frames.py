"""Recordings that lost packets: a frame is right, or raises, or is marked, alone as in a batch."""

# ruff: noqa: D103

import av
import numpy as np
import pytest
from clips import RATE, write_packets

from videogym.doctor import examine
from videogym.testing.coded_clips import draw_code, read_code, write_clip
from videogym.video import TruncatedVideo, VideoError, open_video

COUNT = 70
LOST = [(27, 28), (1,), (33,), (45, 46, 47, 48, 49), (58, 59)]  # packets, in decoding order
X264 = {"g": "20", "preset": "veryfast"}
X265 = "log-level=none:keyint=20"
TELL = {  # codecs whose pictures tell what is missing
    "h264.mp4": ("libx264", X264 | {"bf": "2"}),
    "h264.ts": ("libx264", X264 | {"bf": "3"}),
    "plain_h264.mkv": ("libx264", X264 | {"bf": "0"}),
    "open_h264.mp4": ("libx264", {"bf": "3", "x264-params": "open-gop=1:keyint=20:min-keyint=20"}),
    "hevc.mp4": ("libx265", {"x265-params": f"{X265}:bframes=3"}),
    "plain_hevc.mkv": ("libx265", {"x265-params": f"{X265}:bframes=0"}),
    "mpeg2.ts": ("mpeg2video", {"g": "12", "bf": "2", "b": "2M"}),
    "plain_mpeg2.mkv": ("mpeg2video", {"g": "12", "bf": "0", "b": "2M"}),
}
BLIND = {  # codecs whose pictures do not
    "mpeg4.mp4": ("mpeg4", {"g": "20", "bf": "0", "b": "2M"}),
    "mpeg4_b.mkv": ("mpeg4", {"g": "20", "bf": "2", "b": "2M"}),
    "vp8.webm": ("libvpx", {"g": "20", "b": "400k"}),
    "vp9.webm": ("libvpx-vp9", {"g": "20", "cpu-used": "8", "deadline": "realtime"}),
    "vp9.mp4": ("libvpx-vp9", {"g": "20", "cpu-used": "8", "deadline": "realtime"}),
    "av1.mp4": ("libsvtav1", {"preset": "12", "g": "20"}),
}


def losing(path, codec, options, lost):
    def less(packets):
        return [packet for i, packet in enumerate(packets) if i not in lost]

    write_packets(path, codec, options, less, COUNT)


def shown(pixels):
    """The code in a frame, or None where none can be read."""
    try:
        return read_code(pixels)
    except ValueError:
        return None


def alone(video, time_s, **how):
    """A frame read by itself, and whether it is marked; None where it raises."""
    try:
        batch = video.frames_at([time_s], **how)
    except VideoError:
        return None
    return batch.pixels[0], bool(batch.damaged[0])


def wrong_without_a_word(video):
    """Frames that show another one and are not marked, in a file whose first frame is whole."""
    read = [alone(video, t) for t in video.pts_s]
    due = [round(float(t) * RATE) for t in video.pts_s]
    return [d for d, r in zip(due, read, strict=True) if r and not r[1] and shown(r[0]) != d]


def check_company(video):
    """What is given for a frame, or refused, is the same in any company."""
    raises = [alone(video, t) is None for t in video.pts_s]
    sound = video.pts_s[[not r for r in raises]]
    for pixels, time_s in zip(video.frames_at(sound).pixels, sound, strict=True):
        assert np.array_equal(pixels, alone(video, time_s)[0])
    if any(raises):
        with pytest.raises(TruncatedVideo, match="cannot be decoded"):
            video.frames_at(video.pts_s)
    batch = video.frames_at(video.pts_s, on_error="nearest")
    for pixels, damaged, time_s in zip(batch.pixels, batch.damaged, video.pts_s, strict=True):
        single = alone(video, time_s, on_error="nearest")
        assert np.array_equal(pixels, single[0]) and damaged == single[1], f"at {time_s:.3f} s"


@pytest.mark.parametrize("name", [*TELL, *BLIND])
def test_no_frame_is_wrong_without_a_word(tmp_path, name):
    codec, options = (TELL | BLIND)[name]
    for lost in LOST:
        path = tmp_path / f"{lost[0]}_{name}"
        losing(path, codec, options, lost)
        with open_video(str(path)) as video:
            assert wrong_without_a_word(video) == [], f"packets {lost} lost"
            check_company(video)


@pytest.mark.parametrize("name", [*TELL, *BLIND])
def test_nothing_is_refused_or_marked_where_nothing_is_lost(tmp_path, name):
    codec, options = (TELL | BLIND)[name]
    losing(tmp_path / name, codec, options, ())
    with open_video(str(tmp_path / name)) as video:
        batch = video.frames_at(video.pts_s)
        assert [read_code(pixels) for pixels in batch.pixels] == list(range(COUNT))
        assert not batch.damaged.any()


@pytest.mark.parametrize("name", ["plain_h264.mkv", "hevc.mp4", "mpeg2.ts", "vp9.webm"])
def test_what_precedes_the_loss_and_follows_the_next_keyframe_is_whole(tmp_path, name):
    codec, options = (TELL | BLIND)[name]
    losing(tmp_path / name, codec, options, (30, 31))
    with open_video(str(tmp_path / name)) as video:
        for frame in (0, 19, 22, 44, 69):
            assert shown(alone(video, frame / RATE + 1e-3)[0]) == frame
        read = alone(video, 35 / RATE + 1e-3)
        assert read is None or read[1]


def test_a_lost_frame_that_nothing_refers_to_harms_nothing(tmp_path):
    """x264 without a pyramid refers to no B-frame: every third packet of I P B B P B B."""
    options = X264 | {"bf": "2", "x264-params": "b-pyramid=none:b-adapt=0"}
    losing(tmp_path / "a.mp4", "libx264", options, (6, 26))
    with open_video(str(tmp_path / "a.mp4")) as video:
        batch = video.frames_at(video.pts_s)
        assert [read_code(p) for p in batch.pixels] == [round(t * RATE) for t in video.pts_s.tolist()]
        assert len(batch) == COUNT - 2 and not batch.damaged.any()


@pytest.mark.parametrize("codec", ["libx264", "libx265", "mpeg2video", "mpeg4"])
@pytest.mark.parametrize("packets", [1, 4, 9])
def test_a_transport_stream_that_lost_some_of_its_packets(tmp_path, codec, packets):
    options = {"libx264": X264 | {"bf": "2"}, "libx265": {"x265-params": X265}}
    write_clip(tmp_path / "whole.ts", COUNT, codec=codec, codec_options=options.get(codec, {"b": "2M"}))
    data = (tmp_path / "whole.ts").read_bytes()
    for part in (3, 5, 6):
        start = len(data) // 188 * part // 8 * 188
        (tmp_path / f"{part}.ts").write_bytes(data[:start] + data[start + 188 * packets :])
        with open_video(str(tmp_path / f"{part}.ts")) as video:
            assert wrong_without_a_word(video) == []
            check_company(video)


@pytest.mark.parametrize("codec", ["libx264", "libx265"])
def test_segments_that_were_joined_lost_nothing(tmp_path, codec):
    """Packets are counted anew in each, which looks as if some were missing."""
    options = {"libx264": X264 | {"bf": "2"}, "libx265": {"x265-params": f"{X265}:bframes=3"}}[codec]
    for first in (0, 40):
        pts = range(100 + first, 140 + first)
        write_clip(tmp_path / f"{first}.ts", 40, codec=codec, codec_options=options, pts=pts, first=first)
    (tmp_path / "joined.ts").write_bytes(b"".join((tmp_path / f"{i}.ts").read_bytes() for i in (0, 40)))
    with open_video(str(tmp_path / "joined.ts")) as video:
        assert [read_code(p) for p in video.frames_at(video.pts_s).pixels] == list(range(80))


def noisy(number, width, height):
    """A coded frame with noise below, so that it fills more than one packet's worth of bits."""
    frame = draw_code(number, width, height)
    noise = np.random.default_rng(number).integers(-25, 25, frame[height // 3 :].shape)
    frame[height // 3 :] = np.clip(frame[height // 3 :] + noise, 0, 255)
    return frame


@pytest.mark.parametrize(
    ("codec", "options"),
    [
        ("libx264", X264 | {"bf": "3", "slices": "4"}),
        ("mpeg2video", {"g": "12", "bf": "2", "b": "2M"}),
    ],
)
def test_damage_inside_of_packets_is_told_alike_in_any_company(tmp_path, codec, options):
    """A B-frame comes out before the later frame that it refers to, whose damage is told only then."""
    write_clip(tmp_path / "a.mp4", COUNT, codec=codec, codec_options=options, draw=noisy)
    with av.open(str(tmp_path / "a.mp4")) as container:
        packets = [(p.pos, p.size) for p in container.demux(video=0) if p.size]
    draw, told = np.random.default_rng(7), 0
    for trial in range(12):
        data = bytearray((tmp_path / "a.mp4").read_bytes())
        position, size = packets[int(draw.integers(1, COUNT))]
        start = position + int(draw.integers(min(40, size // 2) if trial % 3 else 8, size))
        end = min(start + int(draw.choice([1, 8, 60, size])), position + size)
        data[start:end] = draw.bytes(end - start)
        path = tmp_path / f"{trial}.mp4"
        path.write_bytes(data)
        with open_video(str(path)) as video:
            told += any(alone(video, t) is None for t in video.pts_s)
            check_company(video)
            for time_s in video.pts_s[::7]:
                with open_video(str(path)) as fresh:
                    one, other = alone(fresh, time_s), alone(video, time_s)
                    assert (one is None) is (other is None)
                    assert one is None or np.array_equal(one[0], other[0])
    assert told, "no damage was told, so nothing was tried"


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("name", ["h264.mp4", "hevc.mp4", "plain_mpeg2.mkv", "mpeg4.mp4"])
def test_a_picture_of_damaged_bytes_is_not_passed_over(tmp_path, name, seed):
    """Its packet holds nothing of a picture any more, and is not one of those that never did."""
    codec, options = {**TELL, **BLIND}[name]
    path, draw = tmp_path / "a.mp4", np.random.default_rng(seed)
    write_clip(path, COUNT, codec=codec, codec_options=options)
    with av.open(str(path)) as container:
        packets = [
            (p.pos, p.size, round(float(p.pts * p.time_base) * RATE))
            for p in container.demux(video=0)
            if p.size
        ]
    data = bytearray(path.read_bytes())
    harmed = [packets[i] for i in draw.choice(np.arange(1, COUNT), 4, replace=False)]
    for position, size, _ in harmed:
        data[position : position + size] = draw.bytes(size)
    path.write_bytes(data)
    with open_video(str(path)) as video:
        assert len(video.pts_s) == COUNT
        for _, _, number in harmed:
            read = alone(video, number / RATE)
            assert read is None or read[1] or shown(read[0]) == number, f"frame {number}"


def test_a_variable_rate_is_no_loss(tmp_path):
    pts = np.cumsum(np.random.default_rng(4).choice([1, 2, 3, 9], COUNT)).tolist()
    options = {"g": "20", "cpu-used": "8", "deadline": "realtime"}
    write_clip(tmp_path / "a.webm", COUNT, codec="libvpx-vp9", codec_options=options, pts=pts)
    with open_video(str(tmp_path / "a.webm")) as video:
        assert not video.frames_at(video.pts_s).damaged.any()


def test_the_doctor_tells_lost_packets_without_decoding(tmp_path):
    losing(tmp_path / "a.mp4", *TELL["h264.mp4"], (27, 28))
    for how in ("none", "some", "all"):
        examination = examine(str(tmp_path / "a.mp4"), decode=how)
        found = examination.findings[0]
        assert found.code == "damaged_frames" and "0.67 to 1.33 s" in found.message
        assert not examination.usable


@pytest.mark.parametrize("name", BLIND)
def test_the_doctor_tells_missing_frames_where_the_codec_cannot(tmp_path, name):
    """Frames 23 to 25 of 30 a second are missing; the keyframe after them is frame 40."""
    codec, options = BLIND[name]
    options = options | {"bf": "0"} if codec == "mpeg4" else options
    losing(tmp_path / name, codec, options, (23, 24, 25))
    codes = {f.code: f for f in examine(str(tmp_path / name), decode="all").findings}
    assert "frames after 0.7" in codes["missing_frames"].message


def test_a_store_keeps_the_mark(tmp_path):
    from videogym.video import FrameStore

    losing(tmp_path / "a.webm", *BLIND["vp9.webm"], (23, 24))
    with FrameStore(tmp_path / "cache") as store:
        for _ in range(2):  # decoded, then remembered
            batch = store.frames(str(tmp_path / "a.webm"), [10 / RATE, 30 / RATE, 50 / RATE], size=(32, 18))
            assert batch.damaged.tolist() == [False, True, False]
