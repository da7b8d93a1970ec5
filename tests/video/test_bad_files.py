"""Files that are no video, or a damaged one: a typed error that names the file, and silence otherwise."""

# ruff: noqa: D103

import os
import subprocess
import sys

import av
import numpy as np
import pytest
from clips import COUNT, RATE, X264

from videogym.testing.coded_clips import draw_code, read_code, write_clip
from videogym.video import (
    NoVideoStream,
    TruncatedVideo,
    UnreadableVideo,
    VideoError,
    VideoNotFound,
    open_video,
)


def silence(index):
    frame = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
    frame.sample_rate, frame.pts = 16_000, 1024 * index
    return frame


def audio_only(path):
    with av.open(str(path), "w") as container:
        stream = container.add_stream("aac", rate=16_000, layout="mono")
        for i in range(20):
            container.mux(stream.encode(silence(i)))
        container.mux(stream.encode(None))


def with_speech(path, frames, seconds):
    """A clip whose sound lasts so long."""
    with av.open(str(path), "w") as container:
        video = container.add_stream("libx264", rate=RATE)
        video.width, video.height, video.pix_fmt = 160, 96, "yuv420p"
        audio = container.add_stream("aac", rate=16_000, layout="mono")
        for i in range(frames):
            frame = av.VideoFrame.from_ndarray(draw_code(i), format="rgb24")
            container.mux(video.encode(frame))
        for i in range(seconds * 16_000 // 1024):
            container.mux(audio.encode(silence(i)))
        for stream in (video, audio):
            container.mux(stream.encode(None))


def cut(source, path, share):
    data = source.read_bytes()
    path.write_bytes(data[: int(len(data) * share)])


def index_first(path):
    write_clip(path, COUNT, codec_options=X264, muxer_options={"movflags": "faststart"})


def with_noise(source, path, first, last):
    """Noise over the packets of some frames, in decoding order."""
    with av.open(str(source)) as container:
        packets = [(p.pos, p.size) for p in container.demux(video=0) if p.size]
    data = bytearray(source.read_bytes())
    noise = np.random.default_rng(3)
    for position, size in packets[first:last]:
        data[position + 5 : position + size] = noise.bytes(size - 5)
    path.write_bytes(data)


@pytest.mark.parametrize(
    ("name", "content", "error"),
    [
        ("empty.mp4", b"", UnreadableVideo),
        ("text.mp4", b"no video\n" * 500, UnreadableVideo),
        ("text.txt", b"no video\n" * 500, UnreadableVideo),  # libav would draw it
        ("noise.mp4", np.random.default_rng(0).bytes(50_000), UnreadableVideo),
        ("list.m3u8", b"#EXTM3U\n#EXTINF:1,\n/etc/passwd\n#EXT-X-ENDLIST\n", UnreadableVideo),
        ("list.mp4", b"ffconcat version 1.0\nfile b.mp4\n", UnreadableVideo),
    ],
)
def test_what_is_no_video(tmp_path, name, content, error):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(error, match=name):
        open_video(str(tmp_path / name))


def test_audio_only(tmp_path):
    audio_only(tmp_path / "speech.mp4")
    with pytest.raises(NoVideoStream, match=r"speech\.mp4"):
        open_video(str(tmp_path / "speech.mp4"))


def test_a_folder_and_a_pipe(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path, tmp_path / "pipe"):
        with pytest.raises(UnreadableVideo, match="not a regular file"):
            open_video(str(path))


def test_permission_denied(tmp_path, monkeypatch):
    """Tests may run as root, who may read everything, so the refusal is staged."""
    write_clip(tmp_path / "secret.mp4", 5)

    def deny(*_args, **_kwargs):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("builtins.open", deny)
    with pytest.raises(VideoNotFound, match=r"secret\.mp4: Permission denied"):
        open_video(str(tmp_path / "secret.mp4"))


@pytest.mark.parametrize("suffix", ["mp4", "mkv", "ts", "flv"])
@pytest.mark.parametrize("seconds", [1, 6])
def test_sound_that_is_shorter_or_longer_is_no_damage(tmp_path, suffix, seconds):
    path = tmp_path / f"film.{suffix}"
    with_speech(path, 90, seconds)
    with open_video(str(path)) as video:
        assert video.meta.duration_s == pytest.approx(3.0, abs=2e-3)
        assert [read_code(p) for p in video.frames_at([0.0, 1.5, 2.99]).pixels] == [0, 45, 89]


@pytest.mark.parametrize("share", [0.3, 0.6, 0.95])
def test_mp4_cut_off_after_its_index(tmp_path, share):
    index_first(tmp_path / "whole.mp4")
    cut(tmp_path / "whole.mp4", tmp_path / "cut.mp4", share)
    with pytest.raises(TruncatedVideo, match=r"cut\.mp4"):
        open_video(str(tmp_path / "cut.mp4"))


def test_mp4_cut_off_before_its_index(clip, tmp_path):
    cut(clip("b_frames").path, tmp_path / "cut.mp4", 0.5)
    with pytest.raises(UnreadableVideo, match=r"cut\.mp4"):
        open_video(str(tmp_path / "cut.mp4"))


@pytest.mark.parametrize("name", ["matroska", "fragmented", "vp9", "mpeg4"])
def test_other_containers_cut_off(clip, tmp_path, name):
    source = clip(name).path
    path = tmp_path / f"cut{source.suffix}"
    cut(source, path, 0.6)
    with pytest.raises(TruncatedVideo, match="cut"):
        open_video(str(path))


def test_joined_transport_streams_have_two_clocks(clip, tmp_path):
    data = clip("mpegts").path.read_bytes()
    (tmp_path / "joined.ts").write_bytes(data + data)
    with pytest.raises(UnreadableVideo, match=r"joined\.ts.*jumps back"):
        open_video(str(tmp_path / "joined.ts"))


def test_h264_in_avi_with_b_frames_has_no_order(tmp_path):
    write_clip(tmp_path / "old.avi", 40, codec_options=X264)
    with pytest.raises(UnreadableVideo, match="remux"):
        open_video(str(tmp_path / "old.avi"))


@pytest.fixture
def noisy(clip, tmp_path):
    """Frames 60 to 89 damaged, inside the group from 50 to 99."""
    path = tmp_path / "noisy.mp4"
    with_noise(clip("b_frames").path, path, 60, 90)
    with open_video(str(path)) as video:
        yield video


def at(*frames):
    return [frame / RATE for frame in frames]


def test_noise_fails_what_it_touches_and_nothing_else(noisy):
    for frame in (0, 49, 100, 159, 50):
        assert read_code(noisy.frames_at(at(frame)).pixels[0]) == frame
    for frames in ((70,), (99,), (20, 70, 120)):
        with pytest.raises(TruncatedVideo, match=r"noisy\.mp4.*s cannot be decoded"):
            noisy.frames_at(at(*frames))
    assert read_code(noisy.frames_at(at(20)).pixels[0]) == 20


def test_nearest_gives_frames_of_other_groups_and_says_so(noisy):
    batch = noisy.frames_at(at(95, 20, 72, 120), on_error="nearest")
    shown = [read_code(p) for p in batch.pixels]
    assert shown == [100, 20, 49, 120], "the nearest frames outside the damaged group are 49 and 100"
    assert batch.damaged.tolist() == [True, False, True, False]
    assert batch.pts_s.tolist() == at(*shown)


def test_nearest_changes_nothing_on_a_whole_file(clip):
    with open_video(str(clip("b_frames").path)) as video:
        strict, lenient = (video.frames_at(at(3, 80), on_error=how) for how in ("raise", "nearest"))
        assert np.array_equal(strict.pixels, lenient.pixels)
        assert not lenient.damaged.any()


def test_nearest_still_fails_when_nothing_can_be_decoded(clip, tmp_path):
    path = tmp_path / "ruined.mp4"
    with_noise(clip("b_frames").path, path, 9, COUNT)
    with open_video(str(path)) as video, pytest.raises(VideoError, match=r"ruined\.mp4"):
        video.frames_at(at(150), on_error="nearest")


def test_hevc_damage_is_told_too(clip, tmp_path):
    """Without strict checks libav's HEVC decoder patches slices with guesses and reports nothing."""
    path = tmp_path / "noisy.mp4"
    with_noise(clip("hevc").path, path, 60, 75)
    with open_video(str(path)) as video:
        assert read_code(video.frames_at(at(20)).pixels[0]) == 20
        with pytest.raises(TruncatedVideo):
            video.frames_at(at(99))


def test_libav_says_nothing_on_stderr(clip, tmp_path):
    with_noise(clip("b_frames").path, tmp_path / "noisy.mp4", 60, 90)
    (tmp_path / "text.mp4").write_text("no video\n" * 100)
    code = (
        "import sys; from videogym.video import *\n"
        "for path in sys.argv[1:]:\n"
        "    try: open_video(path).frames_at([2.4])\n"
        "    except VideoError: pass\n"
    )
    run = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "noisy.mp4"), str(tmp_path / "text.mp4")],
        capture_output=True,
        check=True,
    )
    assert run.stdout + run.stderr == b""


def test_a_stream_that_appears_on_the_way_is_left_out(tmp_path):
    """One packet of a transport stream bears the number of a stream that nobody has announced."""
    write_clip(tmp_path / "film.ts", COUNT, codec_options=X264)
    data = bytearray((tmp_path / "film.ts").read_bytes())
    starts = [i for i in range(0, len(data), 188) if data[i + 1] & 0x5F == 0x41]  # of frames, PID 0x100
    frame = COUNT - 3  # in decoding order
    data[starts[frame] + 2] = 0x80  # PID 0x180
    (tmp_path / "film.ts").write_bytes(data)
    with open_video(str(tmp_path / "film.ts"), cache_dir=tmp_path / "cache") as video:
        assert video.meta.num_frames == COUNT - 1
        first = video.pts_s[:40].tolist()
        assert [read_code(pixels) for pixels in video.frames_at(first).pixels] == list(range(40))


@pytest.mark.parametrize("name", ["mpeg1video.avi", "mpeg2video.wmv", "libx264.asf"])
def test_a_file_in_which_seeking_changes_timestamps_is_refused_when_it_is_opened(tmp_path, name):
    """FFmpeg guesses them where the container has none; no frame could be read, and plays would begin."""
    path = tmp_path / name
    write_clip(path, 2 * RATE, codec=path.stem, codec_options={"bf": "2", "g": "12"})
    with pytest.raises(UnreadableVideo, match=rf"{name}: its timestamps .* convert it to MP4$"):
        open_video(str(path))
