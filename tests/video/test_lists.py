"""Lists of other files, also in front of a container: refused by every backend, without a look at them."""

# ruff: noqa: D103

import importlib.util
import os
import struct

import pytest
from clips import X264 as SHORT_GROUPS

from videogym.testing.coded_clips import read_code, write_clip
from videogym.video import UnreadableVideo, VideoError, open_video

X264 = SHORT_GROUPS | {"g": "99"}  # one group: no later keyframe to compare
COUNT = 40
SECRET = 1000  # number of the first frame of the file that nobody may see
BACKENDS = ["pyav", *(name for name in ("decord", "torchcodec") if importlib.util.find_spec(name))]
MPEG2 = {"codec": "mpeg2video", "codec_options": {"g": "99"}}
MPEG4 = {"codec": "mpeg4", "codec_options": {"g": "99", "b": "2M"}}
KINDS = {"mp4": {}, "mov": {}, "mkv": {}, "flv": {}, "ts": {}, "mpg": MPEG2, "avi": MPEG4}


@pytest.fixture(scope="module")
def secret(tmp_path_factory):
    """A film outside the folder of the others, in three containers."""
    folder = tmp_path_factory.mktemp("secret")
    for suffix in ("ts", "mp4", "mpg"):
        how = {"codec_options": X264} | KINDS[suffix]
        write_clip(folder / f"secret.{suffix}", COUNT, first=SECRET, **how)
    return folder


def hls(secret):
    lines = ["#EXTM3U", "#EXT-X-TARGETDURATION:6", "#EXT-X-MEDIA-SEQUENCE:0", "#EXTINF:6,"]
    return "\n".join([*lines, str(secret / "secret.ts"), "#EXT-X-ENDLIST", ""]).encode()


def concat(secret):
    return f"ffconcat version 1.0\nfile '{secret / 'secret.mp4'}'\n".encode()


def dash(secret):
    address = f"<BaseURL>{secret / 'secret.mp4'}</BaseURL>"
    inside = (
        f'<Period><AdaptationSet><Representation id="0">{address}</Representation></AdaptationSet></Period>'
    )
    return f'<?xml version="1.0"?><MPD profiles="urn:mpeg:dash:profile:full:2011">{inside}</MPD>\n'.encode()


def sdp(_secret):
    return b"v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 127.0.0.1\nt=0 0\nm=video 5004 RTP/AVP 96\n"


def composition(_secret):
    return b'<?xml version="1.0"?>\n<!-- a -->\n<CompositionPlaylist xmlns="http://www.smpte-ra.org/">\n'


LISTS = {
    "hls": hls,
    "hls after a mark": lambda secret: b"\xef\xbb\xbf" + hls(secret),
    "hls after a tag": lambda secret: b"ID3\4\0\0\0\0\0\x0a" + bytes(10) + hls(secret),
    "hls after two tags": lambda secret: (b"ID3\4\0\0\0\0\0\x0a" + bytes(10)) * 2 + hls(secret),
    "concat": concat,
    "dash": dash,
    "sdp": sdp,
    "imf": composition,
}


def in_front(path, text, film):
    """A list, then a film, joined so that the demuxer of the film's kind passes over the list if it can."""
    if path.suffix == ".mkv":  # "#EXT" opens an element of 5171 bytes
        text = text.ljust(5175, b"\n") if text.startswith(b"#EXT") else text
    elif path.suffix in (".mp4", ".mov"):  # the list's first four bytes are the length of a box
        length = struct.unpack(">I", text[:4])[0]
        with open(path, "wb") as file:
            file.write(text)
            file.seek(length)  # a hole
            file.write(film)
        return
    path.write_bytes(text + film)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("suffix", KINDS)
@pytest.mark.parametrize("kind", LISTS)
def test_a_list_in_front_of_a_film_is_refused(tmp_path, secret, kind, suffix, backend):
    write_clip(tmp_path / f"film.{suffix}", COUNT, **({"codec_options": X264} | KINDS[suffix]))
    path = tmp_path / f"listed.{suffix}"
    in_front(path, LISTS[kind](secret), (tmp_path / f"film.{suffix}").read_bytes())
    with pytest.raises(UnreadableVideo, match="begins as a list of other files"):
        open_video(str(path), backend=backend)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("suffix", KINDS)
def test_a_film_that_begins_as_it_should_is_opened(tmp_path, suffix, backend):
    path = tmp_path / f"film.{suffix}"
    write_clip(path, COUNT, **({"codec_options": X264} | KINDS[suffix]))
    if suffix == "ts" and backend != "pyav":
        pytest.skip("refused for another reason")
    try:
        with open_video(str(path), backend=backend) as video:
            assert read_code(video.frames_at([0.0]).pixels[0]) == 0
    except VideoError as error:
        assert backend != "pyav" or suffix == "avi", error
        assert "does not begin" not in str(error)


@pytest.mark.parametrize("backend", BACKENDS)
def test_what_begins_as_nothing_known_is_not_left_to_another_prober(tmp_path, backend):
    """Bytes before the first pack of a program stream, which PyAV, held to containers, passes over."""
    write_clip(tmp_path / "film.mpg", COUNT, **MPEG2)
    path = tmp_path / "padded.mpg"
    path.write_bytes(b"\0\0\0\x10abcd" + bytes(8) + (tmp_path / "film.mpg").read_bytes())
    if backend == "pyav":
        with open_video(str(path)) as video:
            assert video.meta.num_frames == COUNT
        return
    with pytest.raises(UnreadableVideo, match="does not begin as it should"):
        open_video(str(path), backend=backend)


def test_a_list_is_found_behind_as_many_bytes_as_are_probed(tmp_path):
    path = tmp_path / "late.mkv"
    path.write_bytes(b"<!--" + b"x" * 900_000 + b"--><MPD>" + bytes(10))
    with pytest.raises(UnreadableVideo, match="list of other files"):
        open_video(str(path))


def test_a_tag_that_claims_to_be_long_costs_nothing(tmp_path):
    path = tmp_path / "tagged.mp4"
    path.write_bytes(b"ID3\4\0\0\x7f\x7f\x7f\x7f" + os.urandom(100))
    with pytest.raises(UnreadableVideo):
        open_video(str(path))
