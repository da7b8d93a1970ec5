"""What a file that no demuxer takes seems to be, by its first bytes.

Knows nothing about video but the signatures of containers; the rest is what downloads leave in its place.
"""

from __future__ import annotations

import codecs
import os
import struct
from typing import BinaryIO

_HEAD = 4096
_SIGNATURES = (  # (place, bytes, what it is)
    (0, b"version https://git-lfs", "a pointer of Git LFS; run `git lfs pull` in its repository"),
    (0, b"#EXTM3U", "a playlist, which names videos and holds none; fetch it with ffmpeg -i ADDRESS"),
    (0, b"ffconcat", "a list of files for FFmpeg, which holds no video"),
    (0, b"\x00\x05\x16\x07", "what macOS leaves beside a file on other disks; delete it"),
    (0, b"\x89PNG", "a picture (PNG)"),
    (0, b"\xff\xd8\xff", "a picture (JPEG)"),
    (8, b"WEBP", "a picture (WebP)"),
    (0, b"PK\x03\x04", "an archive (ZIP); unpack it"),
    (0, b"\x1f\x8b", "an archive (gzip); unpack it"),
    (0, b"7z\xbc\xaf\x27\x1c", "an archive (7z); unpack it"),
    (0, b"Rar!", "an archive (RAR); unpack it"),
    (257, b"ustar", "an archive (tar); unpack it"),
    (0, b"%PDF", "a document (PDF)"),
    (0, b"ID3", "sound (MP3)"),
    (0, b"fLaC", "sound (FLAC)"),
    (8, b"WAVE", "sound (WAV)"),
)
_PAGES = (b"<!doctype", b"<html", b"<head", b"<?xml", b"{")
_BOXES = (b"ftyp", b"moov", b"mdat", b"free", b"skip", b"wide", b"moof", b"styp", b"sidx")
_MOST_BOXES = 10_000


def sniff(path: str) -> tuple[str, str]:
    """A code of `CAUSES` and what to say of a file that cannot be opened as a video.

    Raises:
        OSError: it cannot be read.
    """
    with open(path, "rb") as file:
        head = file.read(_HEAD).removeprefix(codecs.BOM_UTF8)
        if head[4:8] in _BOXES:
            boxes = _top_boxes(file)
            if b"moov" not in boxes and b"moof" not in boxes:
                return "no_index", "an MP4 without its index (no moov box)"
            return "unreadable", "an MP4 whose index cannot be read"
    for place, mark, what in _SIGNATURES:
        if head[place : place + len(mark)] == mark:
            return "not_video", what
    if head.lstrip().lower().startswith(_PAGES):
        return "not_video", "a web page or a server's reply, in place of what was to be fetched"
    if not any(head):
        return "not_video", "zeros: the space was set aside and never filled"
    if _is_text(head):
        return "not_video", "text"
    return "not_video", "in no format for video that is known"


def _top_boxes(file: BinaryIO) -> set[bytes]:
    """Types of the outermost boxes, as far as they can be walked."""
    size, place = file.seek(0, os.SEEK_END), 0
    found: set[bytes] = set()
    for _ in range(_MOST_BOXES):
        if place + 8 > size:
            break
        file.seek(place)
        length, kind = struct.unpack(">I4s", file.read(8))
        if length == 1:  # the true length follows in 64 bits
            length = int.from_bytes(file.read(8), "big")
        found.add(kind)
        if length < 8:  # 0: up to the end
            break
        place += length
    return found


def _is_text(head: bytes) -> bool:
    try:
        text = head.decode("utf-8", "strict")
    except UnicodeDecodeError as error:
        if error.start < len(head) - 4:  # a letter cut in two at the end is none
            return False
        text = head[: error.start].decode("utf-8")
    return all(char.isprintable() or char.isspace() for char in text)
