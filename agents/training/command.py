"""How the command of a training loop ends: by a line, whatever happened, where it is no fault of ours."""

from __future__ import annotations

import argparse
import errno
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import NoReturn

from videogym import VideoError
from videogym.datasets import TaskFileError, TrainedOnError
from videogym.evaluate import NothingScored
from videogym.extras import MissingExtra
from videogym.grammars import PromptError
from videogym.judging import EndpointError, JudgementLogError
from videogym.mistakes import told_in_a_line

from .archive import UnreadableCheckpoint, read_metadata
from .bounds import OptionError
from .ranks import RankDied, await_death, is_first, is_first_alive, require_peers
from .run import CheckpointMismatch, RunDiverged

_TOLD: tuple[type[Exception], ...] = (
    *(OSError, VideoError, OptionError, MissingExtra, TaskFileError, PromptError, JudgementLogError),
    *(EndpointError, TrainedOnError, NothingScored, CheckpointMismatch, UnreadableCheckpoint, RunDiverged),
)
INTERRUPTED = 130  # status of a program that was interrupted, as shells have it


@contextmanager
def interruptible(resume: Callable[[], str]) -> Iterator[None]:
    """End a command by one line where what is done in it is interrupted, or another rank of it dies.

    Its status is 130 after Ctrl-C or SIGTERM, and 1 after a death. torchrun sends SIGTERM then, too.

    Args:
        resume: says what was saved, and how it is resumed.
    """
    main = threading.current_thread() is threading.main_thread()
    before = signal.signal(signal.SIGTERM, _on_sigterm) if main else None
    try:
        yield
    except KeyboardInterrupt:
        if is_first():
            sys.stderr.write(f"\nInterrupted. {resume()}\n")
        sys.exit(INTERRUPTED)
    except RuntimeError as error:  # gloo and NCCL say in many words that a connection is broken
        death = await_death() or error
        if not isinstance(death, RankDied):
            raise
        _end_after(death, main, resume)
    finally:
        # Not where a rank that ends by itself ignores torchrun's, see `exit_together`.
        if main and signal.getsignal(signal.SIGTERM) is _on_sigterm:
            signal.signal(signal.SIGTERM, before)


def _on_sigterm(number: int, frame: FrameType | None) -> None:
    require_peers()
    raise KeyboardInterrupt


def _end_after(death: RankDied, main: bool, resume: Callable[[], str]) -> NoReturn:
    if main:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)  # which torchrun is about to send
    if is_first_alive():
        sys.stderr.write(f"{death}\n{resume()}\n")
    sys.exit(1)


def saved_so_far(out: Path) -> str:
    """What a run's folder holds, for those who interrupted it."""
    path = out / "checkpoint"
    if not path.exists():
        return "Nothing was saved yet; the same command begins anew."
    done = read_metadata(path)["iteration"]
    return f"{done} iterations are saved; the same command resumes the run in {out}"


def require_folder(out: Path) -> None:
    """Refuse a folder that cannot be made or written in, before anything else is done; it is not made.

    Raises:
        OSError: it is a file, lies below one, or nobody may write there.
    """
    nearest = next(path for path in (out, *out.absolute().parents) if path.exists())
    if not nearest.is_dir():
        raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), str(out))
    if not os.access(nearest, os.W_OK | os.X_OK):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(out))


@contextmanager
def one_line(parser: argparse.ArgumentParser, *others: type[Exception]) -> Iterator[None]:
    """End a command by one line and status 2 for what its user can mend, and what nobody can.

    In what trains not every `ValueError` is such: one from the middle of an update is a fault, and is seen
    with its traceback.

    Args:
        parser: of the command.
        others: errors that are told in a line too, beside those of options, files, runs and videos.
    """
    with told_in_a_line(parser.prog, (*_TOLD, *others)):
        yield
