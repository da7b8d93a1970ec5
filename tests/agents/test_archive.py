"""Checkpoints of runs: tensors and plain data, whole or not at all, and never code."""

# ruff: noqa: D102, D103

from __future__ import annotations

import json
import os
import pickle
import resource
import shutil
import signal
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from forks import fork, in_fork, status
from tensordict import NonTensorData, TensorDict
from torch import nn
from torchrl.checkpoint import Checkpoint, StateDictCheckpointAdapter

from agents.training import archive
from agents.training.archive import UnreadableCheckpoint, load_archive, read_metadata, write_archive

ABOUT = {"iteration": 3, "config": {"seed": "0"}}


class Kept:
    """Keeps the state that it is given."""

    def __init__(self, state: Any = None) -> None:
        self.state = state

    def state_dict(self) -> Any:
        return self.state

    def load_state_dict(self, state: Any) -> None:
        self.state = state


def trained() -> dict[str, Any]:
    """A network, its optimizer after a step, and a memory of every type of number."""
    torch.manual_seed(0)
    policy = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4)).to(torch.float64)
    optimizer = torch.optim.AdamW(policy.parameters(), 0.1, betas=(0.5, 0.75))
    policy(torch.ones(2, 3, dtype=torch.float64)).square().sum().backward()
    optimizer.step()
    memory = {
        "half": torch.tensor([1.5, -2.0], dtype=torch.bfloat16),
        "flags": torch.tensor([[True], [False]]),
        "one": torch.tensor(7),
        "slice": torch.arange(12).reshape(3, 4)[:, 1],
        "nothing": torch.empty(0, 3),
        "plain": [1, 2.5, None, "text", True, (1, 2), {3: "three"}, float("inf")],
    }
    return {"policy": policy, "optimizer": optimizer, "memory": Kept(memory)}


def states(parts: dict[str, Any]) -> dict[str, Any]:
    return {name: part.state_dict() for name, part in parts.items()}


def fresh() -> dict[str, Any]:
    policy = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4)).to(torch.float64)
    return {"policy": policy, "optimizer": torch.optim.AdamW(policy.parameters()), "memory": Kept()}


def assert_equal(found: Any, expected: Any) -> None:
    if isinstance(expected, torch.Tensor):
        assert found.dtype == expected.dtype and torch.equal(found, expected)
    elif isinstance(expected, dict):
        assert list(found) == list(expected)
        for key in expected:
            assert_equal(found[key], expected[key])
    elif isinstance(expected, list | tuple):
        assert type(found) is type(expected)
        for one, other in zip(found, expected, strict=True):
            assert_equal(one, other)
    else:
        assert found == expected and type(found) is type(expected)


def test_what_is_written_is_read(tmp_path: Path) -> None:
    parts, again = trained(), fresh()
    write_archive(tmp_path / "checkpoint", states(parts), ABOUT)
    assert read_metadata(tmp_path / "checkpoint") == ABOUT
    load_archive(tmp_path / "checkpoint", again)
    assert_equal(states(again), states(parts))
    assert again["policy"].state_dict()._metadata == parts["policy"].state_dict()._metadata
    assert [path.name for path in tmp_path.iterdir()] == ["checkpoint"]


def test_torchrl_reads_what_is_written(tmp_path: Path) -> None:
    """Its own reader, which knows nothing of this one, finds the same."""
    parts, again = trained(), fresh()
    del parts["memory"].state["nothing"]  # which it cannot map
    write_archive(tmp_path / "checkpoint", states(parts), ABOUT)
    Checkpoint(format="archive", **again).load(tmp_path / "checkpoint")
    assert_equal(states(again), states(parts))


def test_what_torchrl_has_written_is_read(tmp_path: Path) -> None:
    """Checkpoints of earlier versions."""
    parts, again = trained(), fresh()
    del parts["memory"].state["nothing"]
    Checkpoint(format="archive", **parts).save(tmp_path / "checkpoint", metadata=ABOUT)
    assert read_metadata(tmp_path / "checkpoint") == ABOUT
    load_archive(tmp_path / "checkpoint", again)
    assert_equal(states(again), states(parts))


def test_a_state_that_is_no_plain_data_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    with pytest.raises(TypeError, match=r"not PosixPath|not WindowsPath"):
        write_archive(tmp_path / "checkpoint", {"memory": {"where": Path("a")}}, ABOUT)
    assert not list(tmp_path.iterdir())


# --- files that are not to be believed ---------------------------------------------------------


class Evil:
    """Code that runs where it is unpickled."""

    def __init__(self, sign: Path) -> None:
        self.sign = sign

    def __reduce__(self) -> Any:
        return os.mkdir, (str(self.sign),)


def non_tensor(folder: Path, sign: Path) -> None:
    """An entry of a TensorDict that is no tensor, which tensordict stores as a pickle."""
    shutil.rmtree(folder / "state")
    TensorDict({"x": NonTensorData(Evil(sign), batch_size=[])}, batch_size=[]).memmap(folder / "state")


def torch_state(folder: Path, sign: Path) -> None:
    """A state as `torch.save` writes it, beside JSON."""
    torch.save({"x": Evil(sign)}, folder / "state.pt")


def torch_state_alone(folder: Path, sign: Path) -> None:
    shutil.rmtree(folder)
    folder.mkdir()
    torch.save({"x": Evil(sign)}, folder / "state.pt")


def bare_pickle(folder: Path, sign: Path) -> None:
    """Under the name of a tensor."""
    tensor = next((folder / "state").glob("*.memmap"))
    tensor.write_bytes(pickle.dumps(Evil(sign)))


def consolidated(folder: Path, sign: Path) -> None:
    (folder / "state.tdc").write_bytes(pickle.dumps(Evil(sign)))


def kind_of_tensor_dict(folder: Path, sign: Path) -> None:
    """A type that tensordict would look up and make."""
    path = folder / "state" / "meta.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"x": {"type": "NonTensorData"}}))
    (folder / "state" / "x").mkdir()
    (folder / "state" / "x" / "other.pickle").write_bytes(pickle.dumps(Evil(sign)))


def repack(path: Path, change: Callable[[Path], None]) -> None:
    """Change what a checkpoint holds, and bring its manifest up to date, as an attacker would."""
    inside = path.with_name("inside")
    with zipfile.ZipFile(path) as archive:
        archive.extractall(inside)
    manifest = json.loads((inside / "manifest.json").read_text())
    folder = inside / manifest["components"]["policy"]["path"]
    change(folder)
    files = (file for file in folder.rglob("*") if file.is_file())
    manifest["components"]["policy"]["files"] = sorted(f.relative_to(folder).as_posix() for f in files)
    (inside / "manifest.json").write_text(json.dumps(manifest))
    with zipfile.ZipFile(path, "w") as archive:
        for file in inside.rglob("*"):
            if file.is_file():
                archive.write(file, file.relative_to(inside).as_posix())
    shutil.rmtree(inside)


@pytest.mark.parametrize(
    "attack", [non_tensor, torch_state, torch_state_alone, bare_pickle, consolidated, kind_of_tensor_dict]
)
def test_no_code_of_a_checkpoint_runs(attack: Callable[[Path, Path], None], tmp_path: Path) -> None:
    path, sign = tmp_path / "checkpoint", tmp_path / "code ran"
    write_archive(path, states(trained()), ABOUT)
    repack(path, lambda folder: attack(folder, sign))
    parts = fresh()
    before = {name: tensor.clone() for name, tensor in parts["policy"].state_dict().items()}
    with pytest.raises(UnreadableCheckpoint, match=r"checkpoint cannot be resumed.*begin anew"):
        load_archive(path, parts)
    assert not sign.exists()
    assert_equal(dict(parts["policy"].state_dict()), before)


@pytest.mark.parametrize("payload_format", ["torch", "archive", "consolidated"])
def test_other_formats_of_torchrl_are_refused(payload_format: Any, tmp_path: Path) -> None:
    checkpoint = Checkpoint(format="archive").register(
        "policy", nn.Linear(1, 1), adapter=StateDictCheckpointAdapter(payload_format)
    )
    checkpoint.save(tmp_path / "checkpoint")
    with pytest.raises(UnreadableCheckpoint, match=r"meta\.json"):
        load_archive(tmp_path / "checkpoint", {"policy": nn.Linear(1, 1)})


def test_every_changed_byte_is_noticed_or_changes_nothing(tmp_path: Path) -> None:
    """A flipped bit is refused, or lies where a zip file says what nobody asks for, such as a date."""
    path, parts = tmp_path / "checkpoint", {"policy": Kept({"a": torch.arange(4.0), "b": [1, (2.5, "c")]})}
    write_archive(path, states(parts), ABOUT)
    whole = path.read_bytes()
    refused = 0
    for place in range(len(whole)):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 1 << place % 8]) + whole[place + 1 :])
        again = {"policy": Kept()}
        try:
            assert read_metadata(path) == ABOUT
            load_archive(path, again)
        except UnreadableCheckpoint:
            refused += 1
        else:
            assert_equal(again["policy"].state, parts["policy"].state)
    assert refused > len(whole) // 2


@pytest.mark.parametrize("share", [0.0, 0.01, 0.5, 0.99])
def test_a_cut_file_is_refused(share: float, tmp_path: Path) -> None:
    path = tmp_path / "checkpoint"
    write_archive(path, states(trained()), ABOUT)
    os.truncate(path, int(path.stat().st_size * share))
    with pytest.raises(UnreadableCheckpoint, match="BadZipFile"):
        read_metadata(path)


def test_another_shape_is_refused(tmp_path: Path) -> None:
    write_archive(tmp_path / "checkpoint", {"policy": nn.Linear(2, 3).state_dict()}, ABOUT)
    with pytest.raises(UnreadableCheckpoint, match="size mismatch"):
        load_archive(tmp_path / "checkpoint", {"policy": nn.Linear(3, 3)})


def test_a_compressed_entry_is_refused(tmp_path: Path) -> None:
    """It could hold a thousand times what the file does."""
    path = tmp_path / "checkpoint"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("manifest.json", b" " * 100_000_000)
    with pytest.raises(UnreadableCheckpoint, match="compressed"):
        read_metadata(path)


# --- full disks and kills ----------------------------------------------------------------------


def refuses(path: Path, limit: int) -> bool:
    """Whether a second checkpoint, where no file may be longer, is an error that names the file."""
    write_archive(path, {"policy": {"a": torch.zeros(100_000)}}, {"iteration": 1})
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, resource.getrlimit(resource.RLIMIT_FSIZE)[1]))
    try:
        write_archive(path, {"policy": {"a": torch.ones(100_000)}}, {"iteration": 2})
    except OSError as error:
        return str(path) in str(error)
    return False


@pytest.mark.parametrize("limit", [0, 10, 1000, 300_000, 400_000])
def test_a_file_that_may_not_grow_leaves_the_earlier_one(limit: int, tmp_path: Path) -> None:
    """At every place where a disk can be full: a typed error, and nothing beside what was there."""
    path = tmp_path / "checkpoint"
    assert in_fork(lambda: refuses(path, limit))
    again = {"policy": Kept()}
    load_archive(path, again)
    assert read_metadata(path) == {"iteration": 1} and not again["policy"].state["a"].any()
    assert [path.name for path in tmp_path.iterdir()] == ["checkpoint"]


def killed_in_writing(path: Path) -> None:
    """Write a checkpoint, and be killed at its first tensor."""
    archive._bytes = lambda _: os.kill(os.getpid(), signal.SIGKILL)
    write_archive(path, {"policy": {"a": torch.ones(10)}}, {})


def test_what_a_killed_run_left_goes_with_the_next(tmp_path: Path) -> None:
    path = tmp_path / "checkpoint"
    write_archive(path, {"policy": {"a": torch.zeros(10)}}, {"iteration": 1})
    for _ in range(2):
        assert status(fork(lambda: killed_in_writing(path))) == -signal.SIGKILL
        assert len(list(tmp_path.iterdir())) == 2, "the second has swept what the first left"
    assert read_metadata(path) == {"iteration": 1}
    write_archive(path, {"policy": {"a": torch.ones(10)}}, {"iteration": 2})
    assert [path.name for path in tmp_path.iterdir()] == ["checkpoint"]
