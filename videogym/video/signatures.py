"""Signatures of files: of the container that they are, and of playlists, which are refused.

A playlist in front of a container is passed over by a demuxer that was told the container, as PyAV's is by
a list of formats. A decoder that probes for itself, as decord's and torchcodec's do, opens the files that
the list names, wherever they lie. What they would take for a list is read here as libav's probes read it.
"""

from __future__ import annotations

import os
import re

from videogym.video.types import UnreadableVideo, VideoNotFound

_MOST = 1 << 20  # libav probes no further
_FIRST = 1 << 12
_ID3_HEADER = 10
# Lists for HLS, concat and VobSub; SDP, of which one line tells; DASH and IMF, which are XML and may come
# after comments.
_LIST = re.compile(
    rb"\A(?:\xef\xbb\xbf)?\s*(?:#extm3u|ffconcat|# vobsub index)"
    rb"|(?:\A|[\r\n])c=in ip"
    rb"|<(?:mpd|compositionplaylist)\b",
    re.IGNORECASE,
)
# By libav's name of the format. What resynchronises, as a transport stream does, may begin anywhere.
_CONTAINERS = {
    "mov,mp4,m4a,3gp,3g2,mj2": rb".{4}(?:ftyp|styp|moov|moof|mdat|free|skip|wide|pnot|uuid|sidx)",
    "matroska,webm": rb"\x1a\x45\xdf\xa3",
    "avi": rb"RIFF.{4}AVI[ X\x19]",
    "flv": rb"FLV\x01",
    "asf": rb"\x30\x26\xb2\x75\x8e\x66\xcf\x11\xa6\xd9\x00\xaa\x00\x62\xce\x6c",
    "ogg": rb"OggS",
    "gif": rb"GIF8[79]a",
    "mpeg": rb"\x00\x00\x01\xba",
}


def refuse_playlist(path: str) -> None:
    """Refuse a file that begins as a list of other files, whatever follows.

    Raises:
        UnreadableVideo: it does.
        VideoNotFound: it may not be read.
    """
    if _LIST.search(_text(path)):
        raise UnreadableVideo(f"{path}: begins as a list of other files, which is never opened")


def has_signature(path: str, container: str) -> bool:
    """Whether a file begins as a container does; false for those that may begin in any way.

    Args:
        path: of a file that can be read.
        container: libav's name of the format.
    """
    pattern = _CONTAINERS.get(container)
    return pattern is not None and re.match(pattern, _read(path, 0, _FIRST), re.DOTALL) is not None


def _text(path: str) -> bytes:
    """What a probe for text sees: up to the first NUL, after tags that libav passes over."""
    start, head = 0, _read(path, 0, _FIRST)
    while head.startswith(b"ID3") and start < _MOST:
        start += _length_of_tag(head)
        head = _read(path, start, _FIRST)
    if b"\0" not in head:
        head = _read(path, start, _MOST)
    return head.split(b"\0", 1)[0]


def _length_of_tag(head: bytes) -> int:
    """Bytes of an ID3 tag: seven bits a byte of its length, then header and footer."""
    flags, *length = head[5:_ID3_HEADER].ljust(5, b"\0")
    size = sum((byte & 0x7F) << 7 * (3 - place) for place, byte in enumerate(length))
    return _ID3_HEADER + size + (_ID3_HEADER if flags & 0x10 else 0)


def _read(path: str, start: int, count: int) -> bytes:
    try:
        with open(path, "rb", buffering=0) as file:
            return os.pread(file.fileno(), count, start)
    except OSError as error:
        raise VideoNotFound(f"{path}: {error.strerror or error}") from error
