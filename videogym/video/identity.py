"""Which file this is: can it be read, has it changed, and what is its content's fingerprint.

Knows nothing about decoding. Every way in which a path can fail before a decoder sees it ends here.
"""

from __future__ import annotations

import hashlib
import os
import stat
from dataclasses import dataclass

from videogym.video.types import UnreadableVideo, VideoChanged, VideoNotFound

_END_BYTES = 1 << 16
_SAMPLES = 16
_SAMPLE_BYTES = 1 << 12


@dataclass(frozen=True, slots=True)
class FileIdentity:
    """What ``stat`` says about a file; equal as long as nobody wrote to it or replaced it."""

    size: int  # bytes
    mtime_ns: int
    inode: int
    device: int


def identify(path: str) -> FileIdentity:
    """Look at a file without opening it.

    Raises:
        VideoNotFound: nothing is there or the way to it is closed.
        UnreadableVideo: it is a folder, a pipe or a device, or it is empty.
    """
    try:
        status = os.stat(path)
    except OSError as error:
        raise VideoNotFound(f"{path}: {error.strerror or error}") from error
    except ValueError as error:  # a NUL, or a letter that no file name can hold; neither is printed
        raise VideoNotFound(f"{path!r}: {error}") from error
    if not stat.S_ISREG(status.st_mode):
        raise UnreadableVideo(f"{path}: not a regular file")
    if status.st_size == 0:
        raise UnreadableVideo(f"{path}: the file is empty")
    return FileIdentity(status.st_size, status.st_mtime_ns, status.st_ino, status.st_dev)


def require_unchanged(path: str, before: FileIdentity) -> None:
    """Check that a file is still the one that was opened.

    Raises:
        VideoChanged: it was modified, replaced or removed.
    """
    try:
        now = identify(path)
    except (VideoNotFound, UnreadableVideo) as error:
        raise VideoChanged(f"{path}: gone since it was opened ({error})") from error
    if now != before:
        raise VideoChanged(f"{path}: modified or replaced since it was opened")


def fingerprint(path: str, size: int) -> str:
    """Identity of a file's content, the same on every machine and under every name.

    A hash of the size, both ends and 16 pieces between them: an index lies at one of the ends and
    changes with any new encoding. It costs 0.2 ms, where reading an hour of video would cost a second.
    Bytes changed in the middle may escape it, so caches add the modification time. What is not noticed: a
    file of more than 192 KiB that is rewritten between the samples, to the same size, with its modification
    time set back. Whoever does so empties the cache.

    Args:
        path: the file.
        size: its size in bytes.

    Returns:
        32 hexadecimal digits.

    Raises:
        VideoNotFound: the file may not be read.
    """
    digest = hashlib.blake2b(size.to_bytes(8, "little"), digest_size=16)
    steps = range(1, _SAMPLES + 1)
    places = [(0, _END_BYTES), *((size * i // (_SAMPLES + 1), _SAMPLE_BYTES) for i in steps)]
    try:
        with open(path, "rb", buffering=0) as file:
            for offset, count in [*places, (max(0, size - _END_BYTES), _END_BYTES)]:
                file.seek(offset)
                digest.update(file.read(count))
    except OSError as error:
        raise VideoNotFound(f"{path}: {error.strerror or error}") from error
    return digest.hexdigest()
