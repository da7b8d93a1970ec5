"""Files with several video streams: the film is shown, wherever it stands, and the others are told."""

# ruff: noqa: D103

from fractions import Fraction

import av
import numpy as np
import pytest
from clips import COUNT, X264

from videogym.cli import main
from videogym.doctor import examine
from videogym.testing.coded_clips import read_code, write_clip
from videogym.video import NoVideoStream, open_video
from videogym.video.torchcodec_reader import import_decoder

DEFAULT, COVER, NONE = (av.stream.Disposition(value) for value in (1, 1024, 0))
RED = np.zeros((48, 64, 3), np.uint8) + np.array([200, 0, 0], np.uint8)


def other(codec, frames):
    """Packets of a red 64x48 stream of five frames a second."""
    context = av.CodecContext.create(codec, "w")
    context.width, context.height, context.time_base = 64, 48, Fraction(1, 5)
    context.pix_fmt = {"mjpeg": "yuvj420p", "png": "rgb24"}.get(codec, "yuv420p")
    for i in range(frames):
        frame = av.VideoFrame.from_ndarray(RED, format="rgb24").reformat(format=context.pix_fmt)
        frame.pts = i
        yield from context.encode(frame)
    yield from context.encode(None)


def together(path, film, codec, frames, place, flags):
    """A film and another stream in one file; flags of the other stream and of the film."""
    with av.open(str(film)) as old, av.open(str(path), "w") as new:
        streams = {}
        for what in ("film", "other") if place == "after" else ("other", "film"):
            if what == "film":
                streams[what] = new.add_stream_from_template(old.streams.video[0])
            else:
                streams[what] = new.add_stream(codec, rate=5)
                streams[what].width, streams[what].height = 64, 48
                streams[what].pix_fmt = {"mjpeg": "yuvj420p", "png": "rgb24"}.get(codec, "yuv420p")
        streams["other"].disposition, streams["film"].disposition = flags
        for packet in other(codec, frames):
            packet.stream = streams["other"]
            packet.time_base = Fraction(1, 5)
            new.mux(packet)
        for packet in old.demux(video=0):
            if packet.size:
                packet.stream = streams["film"]
                new.mux(packet)


@pytest.fixture(scope="module")
def film(tmp_path_factory):
    path = tmp_path_factory.mktemp("film") / "film.mp4"
    write_clip(path, COUNT, codec_options=X264)
    return path


OTHERS = [
    ("mjpeg", 1, (NONE, DEFAULT)),  # a cover that nobody has marked
    ("png", 1, (NONE, DEFAULT)),
    ("mjpeg", 1, (DEFAULT, DEFAULT)),
    ("mjpeg", 10, (NONE, DEFAULT)),  # a preview
    ("mpeg4", 10, (NONE, DEFAULT)),
]


@pytest.mark.parametrize("place", ["before", "after"])
@pytest.mark.parametrize(
    ("suffix", "codec", "frames", "flags"),
    [
        (suffix, *other)
        for suffix in ("mp4", "mkv", "mov")
        for other in OTHERS
        if (suffix, other[0]) != ("mkv", "png")  # PyAV does not write it
    ],
)
def test_the_film_is_shown_and_the_other_is_told(
    tmp_path, film, suffix, codec, frames, flags, place, capsys
):
    path = tmp_path / f"two.{suffix}"
    together(path, film, codec, frames, place, flags)
    with open_video(str(path)) as video:
        assert (video.meta.num_frames, video.meta.width) == (COUNT, 160)
        assert [read_code(p) for p in video.frames_at([0.0, 2.0, 5.3]).pixels] == [0, 60, COUNT - 1]
    index = 0 if place == "before" else 1
    (note,) = [found for found in examine(str(path)).findings if found.code == "other_streams"]
    assert note.severity == "note"
    assert note.message == f"h264, 160x96 is shown, and not stream {index} ({codec}, 64x48)"
    assert main(["look", str(path)]) == 0
    assert f"not shown: stream {index} ({codec}, 64x48)" in capsys.readouterr().out


def test_a_default_stream_is_taken_before_another_of_its_kind(tmp_path, film):
    """As libav and ffmpeg do: the 64x48 stream is the default one."""
    together(tmp_path / "two.mkv", film, "mpeg4", 10, "after", (DEFAULT, NONE))
    with open_video(str(tmp_path / "two.mkv")) as video:
        assert (video.meta.num_frames, video.meta.width) == (10, 64)


def test_a_marked_cover_is_never_the_film_and_no_news(tmp_path, film, capsys):
    """In MP4 a marked cover is a part of the metadata; here it comes after the film and is larger."""
    path = tmp_path / "cover.mp4"
    together(path, film, "png", 1, "after", (COVER, DEFAULT))
    with open_video(str(path)) as video:
        assert (video.meta.num_frames, video.meta.codec) == (COUNT, "h264")
    assert examine(str(path)).findings == ()
    assert main(["look", str(path)]) == 0
    assert "not shown: stream 1 (png, 64x48, a cover)" in capsys.readouterr().out


def test_a_cover_alone_is_no_film(tmp_path):
    with av.open(str(tmp_path / "song.m4a"), "w", format="mp4") as new:
        audio, stream = new.add_stream("aac", rate=16_000, layout="mono"), new.add_stream("mjpeg")
        stream.width, stream.height, stream.pix_fmt, stream.disposition = 64, 48, "yuvj420p", COVER
        sound = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
        sound.sample_rate = 16_000
        new.mux(audio.encode(sound))
        new.mux(audio.encode(None))
        for packet in other("mjpeg", 1):
            packet.stream = stream
            new.mux(packet)
    with pytest.raises(NoVideoStream):
        open_video(str(tmp_path / "song.m4a"))


@pytest.mark.parametrize("backend", ["decord", "torchcodec"])
def test_other_backends_show_the_same_stream(tmp_path, film, backend):
    if backend == "decord":
        pytest.importorskip("decord")
    else:
        try:
            import_decoder()
        except ImportError as error:
            pytest.skip(str(error))
    path = tmp_path / "two.mp4"
    together(path, film, "mjpeg", 10, "before", (NONE, DEFAULT))
    with open_video(str(path), backend=backend) as video:
        assert [read_code(p) for p in video.frames_at([0.0, 2.0, 5.3]).pixels] == [0, 60, COUNT - 1]
