"""Files and folders that appear when they are whole."""

# ruff: noqa: D103

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from agents.training.staging import sweep, whole_file, whole_folder


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_a_file_appears_when_it_is_whole(tmp_path: Path) -> None:
    path = tmp_path / "new" / "row.json"
    with whole_file(path) as file:
        file.write(b"one")
        assert not path.exists() and len(names(path.parent)) == 1
    assert path.read_bytes() == b"one" and names(path.parent) == ["row.json"]


def test_a_folder_appears_when_it_is_whole_or_its_files_are_replaced(tmp_path: Path) -> None:
    path = tmp_path / "model"
    with whole_folder(path) as staged:
        (staged / "a").write_text("1")
        (staged / "b").write_text("1")
        assert not path.exists()
    with whole_folder(path) as staged:
        (staged / "a").write_text("2")
    assert [(path / name).read_text() for name in "ab"] == ["2", "1"]
    assert names(tmp_path) == ["model"]


@pytest.mark.parametrize("write", [whole_file, whole_folder])
def test_what_fails_leaves_nothing(write, tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt), write(tmp_path / "a"):
        raise KeyboardInterrupt
    assert names(tmp_path) == []


@pytest.mark.parametrize("write", [whole_file, whole_folder])
def test_a_full_disk_is_told_with_the_name_of_the_file(write, tmp_path: Path) -> None:
    with pytest.raises(OSError, match=r"No space left on device: '.*model'"), write(tmp_path / "model"):
        raise OSError(errno.ENOSPC, "whatever")  # as a write says it, without a name


def test_an_error_of_something_else_stays_what_it_is(tmp_path: Path) -> None:
    with pytest.raises(ConnectionResetError) as caught, whole_file(tmp_path / "a"):
        raise ConnectionResetError(errno.ECONNRESET, "by the judge")
    assert caught.value.filename is None


def test_a_full_disk_under_safetensors_is_an_error_of_the_system(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It has a type of its own for it."""
    with pytest.raises(OSError, match=r"model: .*I/O error"), whole_folder(tmp_path / "model") as staged:
        save_file({"a": torch.ones(1)}, staged / "no" / "such" / "folder")


def test_sweeping_takes_what_the_dead_left_and_nothing_else(tmp_path: Path) -> None:
    """A live writer's, links, and names that were not made here stay."""
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "thesis.tex").write_text("precious")
    folder = tmp_path / "run"
    folder.mkdir()
    dead, link = f".a.{'0' * 16}.part", f".b.{'1' * 16}.part"
    (folder / dead).mkdir()
    (folder / dead / "weights").write_text("half")
    (folder / dead / "link").symlink_to(outside)
    (folder / f".c.{'2' * 16}.part").write_text("half")
    (folder / link).symlink_to(outside)
    for name in (".a.part", "a.0123456789abcdef.part", ".hidden", "checkpoint"):
        (folder / name).write_text("mine")
    with whole_file(folder / "live") as file, whole_folder(folder / "whole") as staged:
        file.write(b"x")
        (staged / "y").write_text("y")
        sweep(folder)
        assert staged.exists()
    kept = {".a.part", link, ".hidden", "a.0123456789abcdef.part", "checkpoint", "live", "whole"}
    assert {*names(folder)} == kept
    assert names(outside) == ["thesis.tex"]


def test_a_writer_that_is_swept_before_it_has_locked_begins_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import fcntl

    real, swept = fcntl.flock, []

    def flock(handle: int, how: int) -> None:
        if not swept and not how & fcntl.LOCK_NB:
            swept.append(1)
            sweep(tmp_path)
        real(handle, how)

    monkeypatch.setattr(fcntl, "flock", flock)
    with whole_file(tmp_path / "a") as file:
        file.write(b"x")
    assert swept and names(tmp_path) == ["a"]


def test_a_file_system_without_locks_serves(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def flock(handle: int, how: int) -> None:
        raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))

    monkeypatch.setattr("fcntl.flock", flock)
    with whole_file(tmp_path / "a") as file:
        file.write(b"x")
    assert names(tmp_path) == ["a"]
