"""A device that is not there: tensors that say they are on it, are in the CPU's memory, and do not mix.

Operations compute on the CPU. Where an operation of CUDA would refuse tensors of two devices it is refused
here, after torch's own list of operations that check nothing: they take scalars of the CPU, indexing takes
indices of the CPU, copies take anything. All else wants one device. `tolist`, `item` and `cpu` read from
the device, `numpy` does not.

It does not know CUDA's kernels, streams, memory, types or numbers, nor what other libraries do where they
find a real one.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torchgen
from torch import Tensor
from torch.autograd.graph import increment_version
from torch.optim import optimizer
from torch.utils._pytree import tree_leaves, tree_map
from torch.utils.backend_registration import _DummyBackendModule, _setup_privateuseone_for_python_backend

NAME = "pretend"
_LIBRARY = torch.library.Library("aten", "IMPL")
INDEXING = ("index", "index_put", "index_put_", "_index_put_impl_", "_unsafe_index", "_unsafe_index_put")
FACTORIES = (  # with which all others begin, and those that give an empty tensor its size later
    *("empty.memory_format", "empty_strided", "arange", "arange.start", "arange.start_step"),
    *("randperm", "randperm.generator", "linspace", "eye", "eye.m"),
)
COPIES = ("copy_", "_to_copy", "fill_")  # a scalar is filled in from anywhere


class MixedDevices(RuntimeError):
    """Tensors of two devices met."""


class OnDevice(Tensor):
    """A tensor of the device; ``inner`` is what it holds."""

    inner: Tensor
    __torch_function__ = torch._C._disabled_torch_function_impl  # type: ignore[assignment]

    @staticmethod
    def __new__(cls, inner: Tensor) -> OnDevice:
        """A tensor that looks like another, on the device."""
        made = Tensor._make_wrapper_subclass(
            cls,
            inner.size(),
            strides=inner.stride(),
            storage_offset=inner.storage_offset(),
            dtype=inner.dtype,
            device=torch.device(NAME, 0),
        )
        made.inner = inner
        return made

    @classmethod
    def __torch_dispatch__(
        cls, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """An operation with tensors of the device."""
        return _run(func, args, kwargs or {})

    def tolist(self) -> Any:
        """Read from the device, which torch does not for tensors of a class of their own."""
        return self.cpu().tolist()

    def numpy(self, **_: Any) -> Any:
        """Refused, as of any device."""
        raise TypeError(f"{NAME} has tensors that numpy cannot read; use Tensor.cpu() first")

    def __repr__(self, **_: Any) -> str:
        return f"OnDevice({self.inner!r})"

    @property
    def data(self) -> Tensor:  # type: ignore[override]
        """The tensor outside of any graph; to set it changes what is held."""
        return Tensor.data.__get__(self)  # type: ignore[attr-defined]

    @data.setter
    def data(self, value: OnDevice) -> None:
        Tensor.data.__set__(self, value)  # type: ignore[attr-defined]
        self.inner = value.inner


class _Module(_DummyBackendModule):
    def get_amp_supported_dtype(self) -> list[torch.dtype]:
        """As CUDA's."""
        return [torch.bfloat16, torch.float16]

    def synchronize(self, *_: Any) -> None:
        """Nothing is ever under way."""


def install() -> None:
    """Let this process have the device, for good."""
    _setup_privateuseone_for_python_backend(NAME, _Module())
    for name in FACTORIES:
        operator, _, overload = name.partition(".")
        make = getattr(getattr(torch.ops.aten, operator), overload or "default")
        _LIBRARY.impl(name, functools.partial(_made, make), "PrivateUse1")
    _LIBRARY.impl("_copy_from", _copy_from, "PrivateUse1")  # `torch.tensor` copies below all classes
    # As on a real device, a parameter stays itself when it is moved, so that tied weights stay tied, and
    # optimizers step many of them in a call.
    torch.__future__.set_swap_module_params_on_conversion(True)
    optimizer._foreach_supported_types.append(OnDevice)


def _made(make: Callable[..., Tensor], *args: Any, device: torch.device, **options: Any) -> OnDevice:
    _check_generator(make, options)
    return OnDevice(make(*args, **options))


def _copy_from(source: Tensor, to: Tensor, non_blocking: bool = False) -> Tensor:
    _inner(to).copy_(_inner(source))
    return to


@functools.cache
def _unchecked() -> tuple[frozenset[str], frozenset[str]]:
    """Operations that take scalars of the CPU, and those that take lists with tensors of two devices."""
    folder = Path(torchgen.__file__).parent
    text = (folder / "packaged/ATen/native/native_functions.yaml").read_text()
    found = re.findall(r"^- func: ([\w.]+)\(.*\n(?:  .*\n)*?  device_check: NoCheck *(.*)$", text, re.M)
    scalars = frozenset(name for name, why in found if why == "# TensorIterator")
    return scalars, frozenset(name for name, why in found if why.startswith("# foreach"))


def _run(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Compute an operation with tensors of the device, and there if it is not told to go elsewhere."""
    schema = func._schema
    name = schema.name.removeprefix("aten::")
    _check(func, name, args, kwargs)
    _check_generator(func, kwargs)
    here = kwargs.get("device") is None or torch.device(kwargs["device"]).type == NAME
    if here and "device" in kwargs:
        kwargs = {**kwargs, "device": torch.device("cpu")}
    plain_args, plain_kwargs = tree_map(_inner, (args, kwargs))
    out = func(*plain_args, **plain_kwargs)
    changed = _changed(schema, args, kwargs)
    if changed:
        if any(value.shape != value.inner.shape for value in changed if isinstance(value, OnDevice)):
            raise NotImplementedError(f"{name} has changed the shape of a tensor in place")
        # torch counts changes itself, but not those of lists of tensors of a class of their own.
        increment_version([tensor for value in changed if isinstance(value, list) for tensor in value])
        return changed[0] if len(schema.returns) == 1 else tuple(changed) if schema.returns else None
    return tree_map(lambda leaf: OnDevice(leaf) if isinstance(leaf, Tensor) else leaf, out) if here else out


def _check_generator(func: Any, options: dict[str, Any]) -> None:
    if (generator := options.get("generator")) is not None:
        raise MixedDevices(f"{func} on {NAME} was given a generator of {generator.device}")


def _inner(leaf: Any) -> Any:
    return leaf.inner if isinstance(leaf, OnDevice) else leaf


def _arguments(schema: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> list[tuple[bool, Any]]:
    """Whether it is written to, and value, of every argument that is there."""
    values = [*args, *[kwargs.get(argument.name) for argument in schema.arguments[len(args) :]]]
    return [
        (argument.alias_info is not None and argument.alias_info.is_write, value)
        for argument, value in zip(schema.arguments, values, strict=True)
    ]


def _changed(schema: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> list[Any]:
    if not schema.is_mutable:
        return []
    return [value for written, value in _arguments(schema, args, kwargs) if written]


def _check(func: Any, name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
    """Refuse what CUDA would.

    Raises:
        MixedDevices: with the operation and the devices of its tensors.
    """
    if name in COPIES:
        return
    arguments = _arguments(func._schema, args, kwargs)
    if name in INDEXING:
        # Indices may be on the CPU; what is indexed there has no indices of the device.
        arguments = [pair for pair in arguments if not isinstance(pair[1], (list, tuple))]
        if not isinstance(args[0], OnDevice):
            raise MixedDevices(f"{name}: a tensor of the CPU is indexed, or set, by one of {NAME}")
    overload = func._schema.overload_name
    full = f"{name}.{overload}" if overload else name
    scalars, lists = _unchecked()
    if full in lists:
        # Item by item: what is one tensor for all may be anywhere.
        columns = [pair for pair in arguments if isinstance(pair[1], (list, tuple)) and pair[1]]
        for row in zip(*[value for _, value in columns], strict=True):
            _same(full, list(zip([written for written, _ in columns], row, strict=True)), scalars=True)
        return
    flat = [(written, leaf) for written, value in arguments for leaf in tree_leaves(value)]
    _same(full, flat, scalars=full in scalars or name in INDEXING)


def _same(name: str, values: list[tuple[bool, Any]], scalars: bool) -> None:
    tensors = [(written, value) for written, value in values if isinstance(value, Tensor)]
    there = [
        not isinstance(value, OnDevice) and not (scalars and not written and value.dim() == 0)
        for written, value in tensors
    ]
    if any(there) and any(isinstance(value, OnDevice) for _, value in tensors):
        found = ", ".join(f"{tuple(value.shape)} on {value.device}" for _, value in tensors)
        raise MixedDevices(f"{name}: expected all tensors to be on the same device, found {found}")
