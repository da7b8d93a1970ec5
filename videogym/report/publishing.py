"""Files that appear when they are whole, in place of those that were there.

A page may have a folder of data beside it. The folder has the name of its content and is there before the
page that reads it; the one that an earlier page read goes after that. So a page and its data belong
together at every moment, whenever a writer is killed.
"""

from __future__ import annotations

import glob
import os
import re
import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from videogym.writing import naming

_DIGEST = re.compile(r"[0-9a-f]{32}")  # names of the folders that are made here, and of no other,
_GOING = re.compile(r"\.[0-9a-f]{32}\.going")  # and what is left of them while they are removed


def data_folder(page: Path) -> Path:
    """Where the data of a page lie: ``report.files`` for ``report.html``."""
    return page.with_name(f"{page.stem}.files")


def partial_path(page: Path, kind: str = "") -> Path:
    """Where this process makes a page, or some kind of data of one, before they appear."""
    return page.with_name(f".{page.name}{kind}.{os.getpid()}.partial")


def publish(page: Path, texts: Iterable[str], data: tuple[Path, str] | None = None) -> None:
    """Write a page that appears when it is whole.

    Args:
        page: the file.
        texts: what it holds, piece by piece.
        data: a finished folder of data and the name of its content, which appears below `data_folder`
            before the page does; None: the page needs none.

    Raises:
        OSError: the page cannot be written; one that was there is as it was.
    """
    partial = partial_path(page)
    try:
        with naming(page), partial.open("w", encoding="utf-8", newline="\n") as file:
            file.writelines(texts)
            file.flush()
            os.fsync(file.fileno())
        if data is None and not data_folder(page).is_dir():
            os.replace(partial, page)
            return
        with _alone(data_folder(page)) as folder:
            if data is not None:
                _move_in(data[0], folder / data[1])
            os.replace(partial, page)
            _forget_data(folder, None if data is None else data[1])
    finally:
        partial.unlink(missing_ok=True)


@contextmanager
def _alone(folder: Path) -> Iterator[Path]:
    """The folder of data, in which nobody else moves anything meanwhile."""
    import fcntl  # not on every system, and needed by large reports alone

    folder.mkdir(exist_ok=True)
    handle = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield folder
    finally:
        os.close(handle)


def _move_in(made: Path, place: Path) -> None:
    if place.is_dir():  # the same content
        shutil.rmtree(made)
    else:
        os.rename(made, place)


def _forget_data(folder: Path, kept: str | None) -> None:
    """Remove data that no page reads any more, and the folder if that was all.

    What goes loses its name first: a name of content stands for all of it, also when this is killed.
    """
    for going in [entry for entry in folder.iterdir() if _GOING.fullmatch(entry.name)]:
        shutil.rmtree(going, ignore_errors=True)
    for entry in [entry for entry in folder.iterdir() if _DIGEST.fullmatch(entry.name)]:
        if entry.name == kept or entry.is_symlink():
            continue
        going = entry.with_name(f".{entry.name}.going")
        with suppress(OSError):  # what cannot be removed may stay
            os.rename(entry, going)
            shutil.rmtree(going)
    with suppress(OSError):  # something of somebody else's is in it
        folder.rmdir()


def forget_leftovers(page: Path) -> None:
    """Remove what writers of the same page left that were killed while they wrote."""
    for leftover in page.parent.glob(f".{glob.escape(page.name)}.*.partial"):
        writer = leftover.name.split(".")[-2]
        if not writer.isdigit() or _runs(int(writer)):
            continue
        with suppress(OSError):  # another writer was faster
            if leftover.is_dir() and not leftover.is_symlink():
                shutil.rmtree(leftover)
            else:
                leftover.unlink()


def _runs(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except (OSError, OverflowError):
        pass  # somebody else's, or no number of a process
    return True
