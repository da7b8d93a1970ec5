"""The state of a run as one file, in the layout of TorchRL's checkpoint archives: tensors and plain data.

TorchRL reads what is written here. It does not do the reading: its reader follows what a file says of
itself and loads pickles that are named in it, which are code of whoever wrote the file. Here a file is the
bytes of tensors and JSON, and one that holds anything else is refused before any of it is used. Nor does
TorchRL do the writing: it maps tensors into a folder first, so that a full disk kills the process, and a
killed process leaves the folder.
"""

from __future__ import annotations

import errno
import json
import struct
import zipfile
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from .staging import whole_file

FORMAT = {"format": "torchrl.checkpoint", "format_version": 1}
ADAPTER = {"adapter": "torchrl.state_dict", "adapter_version": 1}
_TENSOR_DICT = {"shape": [], "device": "cpu", "_type": "<class 'tensordict._td.TensorDict'>"}
_DTYPES = {str(kind): kind for kind in vars(torch).values() if isinstance(kind, torch.dtype)}
_SEQUENCES: dict[str, Callable[[Any], Any]] = {"list": list, "tuple": tuple, "torch_size": torch.Size}


class UnreadableCheckpoint(ValueError):
    """A checkpoint is damaged, or holds what is neither a tensor nor plain data."""


# --- writing -----------------------------------------------------------------------------------


def write_archive(path: Path, states: Mapping[str, Any], metadata: Mapping[str, Any]) -> None:
    """Write states; they replace those of an earlier file when they are whole.

    Args:
        path: of the file.
        states: what ``state_dict`` gave, by name: tensors, numbers, texts, None, and dicts, lists and
            tuples of them.
        metadata: JSON.

    Raises:
        TypeError: a state holds something else.
        OSError: it cannot be written; the earlier file is still there.
    """
    # Before anything is written: all that can be refused.
    encoded = {name: _encoded(states[name]) for name in sorted(states)}
    components = {}
    with whole_file(path) as file, zipfile.ZipFile(file, "w") as archive:
        for number, (name, (schema, tensors)) in enumerate(encoded.items()):
            folder = f"components/{number:04d}-{name}"
            about = {key: _about(tensor) for key, tensor in tensors.items()}
            contents: dict[str, bytes | Tensor] = {
                "state.json": json.dumps(schema).encode(),
                "state/meta.json": json.dumps({**about, **_TENSOR_DICT}).encode(),
                **{f"state/{key}.memmap": tensor for key, tensor in tensors.items()},
            }
            for inner, content in contents.items():
                with archive.open(f"{folder}/{inner}", "w", force_zip64=True) as entry:
                    entry.write(_bytes(content) if isinstance(content, Tensor) else content)
            components[name] = {**ADAPTER, "path": folder, "files": sorted(contents)}
        manifest = {**FORMAT, "container": "archive", "components": components, "metadata": {**metadata}}
        archive.writestr("manifest.json", json.dumps(manifest, indent=2))


def _encoded(state: Any) -> tuple[Any, dict[str, Tensor]]:
    """A state as JSON, and the tensors that it names."""
    tensors: dict[str, Tensor] = {}

    def encode(value: Any) -> dict[str, Any]:
        if isinstance(value, Tensor):
            key = f"tensor_{len(tensors):08d}"
            tensors[key] = value.detach()
            return {"kind": "tensor", "key": key, "device": str(value.device)}
        if isinstance(value, Mapping):
            items = [[encode(key), encode(item)] for key, item in value.items()]
            versions = getattr(value, "_metadata", None)  # of a module's parts
            if versions is None:
                return {"kind": "dict", "items": items}
            return {"kind": "ordered_dict", "items": items, "metadata": encode(versions)}
        for kind, make in _SEQUENCES.items():
            if type(value) is make:
                return {"kind": kind, "items": [encode(item) for item in value]}
        if value is None or isinstance(value, bool | int | float | str):
            return {"kind": "value", "value": value}
        raise TypeError(
            f"a checkpoint holds tensors and plain data, not {type(value).__name__} {value!r:.80}"
        )

    return encode(state), tensors


def _about(tensor: Tensor) -> dict[str, Any]:
    return {"device": "cpu", "shape": list(tensor.shape), "dtype": str(tensor.dtype), "is_nested": False}


def _bytes(tensor: Tensor) -> Any:
    return tensor.cpu().contiguous().reshape(-1).view(torch.uint8).numpy()


# --- reading -----------------------------------------------------------------------------------


def read_metadata(path: Path) -> dict[str, Any]:
    """What a file says about its states.

    Raises:
        UnreadableCheckpoint: see `load_archive`.
    """
    with _opened(path) as (_, manifest):
        return dict(manifest["metadata"])


def load_archive(path: Path, parts: Mapping[str, Any]) -> None:
    """Load the states of a file, those of TorchRL's own archives too.

    Args:
        path: of the file.
        parts: modules, optimizers and the like, by the names of their states; each is given its own by
            ``load_state_dict``, on the CPU.

    Raises:
        UnreadableCheckpoint: the file is damaged, of another format, of other parts, or holds anything but
            tensors and plain data. No pickle is ever loaded.
        OSError: it cannot be read.
    """
    with _opened(path) as (archive, manifest):
        folders = {name: _folder(name, record) for name, record in manifest["components"].items()}
        if missing := parts.keys() - folders.keys():
            raise ValueError(f"it holds {', '.join(folders) or 'nothing'}, but no {', '.join(missing)}")
        about = {name: _json(archive, f"{folder}/state/meta.json") for name, folder in folders.items()}
        _require_only_tensors(archive, folders, about)
        for name, part in parts.items():
            part.load_state_dict(_read(archive, folders[name], about[name]))


@contextmanager
def _opened(path: Path) -> Iterator[tuple[zipfile.ZipFile, dict[str, Any]]]:
    """An archive and its manifest; whatever is wrong with it has one type, and names the file."""
    try:
        with path.open("rb") as file, zipfile.ZipFile(file) as archive:
            manifest = _json(archive, "manifest.json")
            if any(manifest[key] != value for key, value in FORMAT.items()):
                raise ValueError("it has another format")
            yield archive, manifest
    except torch.OutOfMemoryError:
        raise  # of a device: nothing is wrong with the file
    except OSError as error:
        if error.errno != errno.EINVAL:  # of a place in the file that none can be
            raise
        raise _unreadable(path, error) from error
    except _DAMAGED as error:
        raise _unreadable(path, error) from error


def _unreadable(path: Path, error: Exception) -> UnreadableCheckpoint:
    reason = str(error) if type(error) is ValueError else f"{type(error).__name__}: {error}"
    advice = "restore the file, or remove it to begin anew"
    return UnreadableCheckpoint(f"{path} cannot be resumed: {reason}; {advice}")


# Of archives, JSON and states: a file can be wrong in all ways. RuntimeError is torch's for a wrong shape.
_DAMAGED = (
    *(zipfile.BadZipFile, struct.error, EOFError, OverflowError, ValueError),
    *(LookupError, TypeError, AttributeError, RuntimeError),
)


def _folder(name: str, record: Mapping[str, Any]) -> str:
    if any(record[key] != value for key, value in ADAPTER.items()):
        raise ValueError(f"its {name} is stored by {record['adapter']!r}, not by {ADAPTER['adapter']!r}")
    return str(record["path"])


def _require_only_tensors(
    archive: zipfile.ZipFile, folders: Mapping[str, str], about: Mapping[str, Mapping[str, Any]]
) -> None:
    """Refuse an archive with any file that is not a tensor's, or JSON that is read here."""
    known = ["manifest.json"]
    for name, folder in folders.items():
        tensors = about[name].keys() - _TENSOR_DICT.keys()
        known += [f"{folder}/state.json", f"{folder}/state/meta.json"]
        known += [f"{folder}/state/{key}.memmap" for key in tensors]
    if odd := sorted({*archive.namelist()} - {*known}):
        names = ", ".join(map(repr, odd[:3]))
        raise ValueError(f"it holds {names}: neither a tensor nor plain data, and never loaded")


def _json(archive: zipfile.ZipFile, name: str) -> Any:
    return json.loads(_entry(archive, name))


def _entry(archive: zipfile.ZipFile, name: str) -> bytes:
    """An entry's bytes, whose sum zipfile checks; stored as they are, so no more than the file has."""
    info = archive.getinfo(name)
    if info.compress_type != zipfile.ZIP_STORED or info.file_size != info.compress_size:
        raise ValueError(f"its {name!r} is compressed")
    return archive.read(info)


def _read(archive: zipfile.ZipFile, folder: str, about: Mapping[str, Any]) -> Any:
    """A state."""

    def decode(value: Mapping[str, Any]) -> Any:
        kind = value["kind"]
        if kind == "tensor":
            return _tensor(_entry(archive, f"{folder}/state/{value['key']}.memmap"), about[value["key"]])
        if kind == "value":
            return _plain(value["value"])
        if kind in _SEQUENCES:
            return _SEQUENCES[kind]([decode(item) for item in value["items"]])
        if kind not in ("dict", "ordered_dict"):
            raise ValueError(f"it holds a {kind!r}, which is neither a tensor nor plain data")
        items: Any = OrderedDict((decode(key), decode(item)) for key, item in value["items"])
        if kind == "dict":
            return dict(items)
        if "metadata" in value:
            items._metadata = decode(value["metadata"])
        return items

    return decode(_json(archive, f"{folder}/state.json"))


def _tensor(content: bytes, about: Mapping[str, Any]) -> Tensor:
    kind, shape = _DTYPES[about["dtype"]], torch.Size(about["shape"])
    if len(content) != shape.numel() * kind.itemsize:
        raise ValueError(f"a tensor of shape {list(shape)} and {kind} has {len(content)} bytes")
    if not content:
        return torch.empty(shape, dtype=kind)
    return torch.frombuffer(bytearray(content), dtype=kind).reshape(shape)


def _plain(value: Any) -> Any:
    if value is not None and type(value) not in (bool, int, float, str):
        raise ValueError(f"it holds {value!r:.80} for a value")
    return value
