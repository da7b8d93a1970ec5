"""A model's weights over several ranks, by torch's FSDP2; without torchrun nothing here does anything.

Weights, gradients and the optimizer's moments are divided by decoder layer and vision block. With gradients
a layer is gathered when it is needed and freed again: all ranks must call the model equally often, which
`agents.training.ranks.plan_micro_batches` sees to. Without, as in sampling, the model is gathered as a
whole (`unsharded_params`), and each rank calls it as it likes: layer by layer all weights would be sent for
every token.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from itertools import repeat
from typing import Any, cast

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.fsdp import (
    FSDPModule,
    MixedPrecisionPolicy,
    fully_shard,
    register_fsdp_forward_method,
)
from torch.distributed.tensor import DTensor, distribute_tensor
from torch.utils._pytree import tree_leaves, tree_map_only, tree_map_with_path

from .ranks import broadcast_from_rank0, init_distributed, is_first, launched, size


class Shardable(nn.Module):
    """A model that says what of it is divided over ranks.

    Attributes:
        shards: weights by name, while ranks have shards of them.
    """

    shards: dict[str, nn.Parameter]

    def layers(self) -> list[nn.Module]:
        """Modules that are gathered one at a time, in the order in which they are called."""
        raise NotImplementedError

    def replicated(self) -> list[nn.Parameter]:
        """Weights that are whole on every rank."""
        raise NotImplementedError

    def entrances(self) -> tuple[str, ...]:
        """Names of the methods that use weights and are called from outside."""
        raise NotImplementedError

    def rehearse(self) -> None:
        """Call the language model once, on anything."""
        raise NotImplementedError


def fully_shard_model(model: Shardable, device: str, compute: torch.dtype | None = None) -> None:
    """Divide a model's weights over the ranks, in place; in one process it stays as it is.

    What is neither one of its layers nor replicated is gathered together, in the outermost unit.

    Args:
        model: with all its adapters, on any device; the same on all ranks, random weights included.
        device: where the shards are, as torch names it.
        compute: type of gathered weights; None: their own. Shards and gradients keep theirs.
    """
    if not launched():
        return
    mesh = _mesh(device)
    frozen = set(model.replicated())
    for weight in frozen:  # not buffers: rotary frequencies stay in float32
        weight.data = weight.data.to(device, compute)
    # Not of inputs, which the model casts as one in bfloat16 does.
    policy = MixedPrecisionPolicy(
        param_dtype=compute, reduce_dtype=torch.float32, cast_forward_inputs=False
    )
    for layer in model.layers():
        fully_shard(layer, mesh=mesh, mp_policy=policy)
    fully_shard(model, mesh=mesh, mp_policy=policy, reshard_after_forward=False, ignored_params=frozen)
    _sum_gradients(model)
    for method in model.entrances():
        register_fsdp_forward_method(model, method)
    model.shards = dict(model.named_parameters())
    # The first call decides which unit is the outermost.
    with unsharded_params(model):
        model.rehearse()


def fully_shard_head(head: nn.Module, device: str) -> None:
    """Divide the few weights of a module that reads a model, in place; gathered whenever it is called.

    All ranks call it equally often with gradients, as they do the model.

    Args:
        head: the same on all ranks.
        device: where its shards are.
    """
    if launched():
        fully_shard(head, mesh=_mesh(device))
        _sum_gradients(head)


def _mesh(device: str) -> DeviceMesh:
    """All ranks, in a row."""
    init_distributed(device)
    return init_device_mesh(torch.device(device).type, (size(),))


def _sum_gradients(module: nn.Module) -> None:
    """Add the gradients of ranks: losses are weighted for the whole minibatch. Gloo knows no other."""
    for unit in _units(module):
        unit.set_gradient_divide_factor(1.0)
        unit.set_force_sum_reduction_for_comms(True)


def _units(model: nn.Module) -> list[FSDPModule]:
    return [module for module in model.modules() if isinstance(module, FSDPModule)]


@contextmanager
def unsharded_params(model: nn.Module) -> Iterator[None]:
    """Gather all weights, in their type of computing, for calls without gradients."""
    units = _units(model)
    if not units:
        yield
        return
    root = units[0]
    root.set_reshard_after_forward(False)
    for unit in units:
        unit.unshard()
    try:
        with torch.no_grad():
            yield
    finally:
        for unit in units:
            unit.reshard()
            unit.set_reshard_after_forward(unit is not root, recurse=False)
        # Ranks called their layers in orders of their own, which nothing shall be prefetched by.
        root.reset_iter_state()


def full_tensor(tensor: Tensor) -> Tensor:
    """A tensor of which ranks may have shards; all of them must ask for it."""
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


# --- checkpoints -------------------------------------------------------------------------------


class FullStateDict:
    """A module or optimizer whose checkpoint is that of one process: whole, by the first rank.

    All ranks call `gather` before the first saves ``state_dict``, and `scatter` after the first was given
    a state by ``load_state_dict``, whoever wrote it.

    Args:
        part: the module or optimizer.
    """

    def __init__(self, part: nn.Module | torch.optim.Optimizer) -> None:
        self._part, self._state = part, cast(dict[str, Any], {})

    def gather(self) -> None:
        """Assemble the state in the first rank's memory."""

        def assemble(tensor: Tensor) -> Tensor | None:
            tensor = full_tensor(tensor.detach())
            return tensor.cpu() if is_first() else None

        self._state = tree_map_only(Tensor, assemble, self._part.state_dict())

    def state_dict(self) -> dict[str, Any]:
        """The state that was gathered."""
        return self._state

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Keep a state to scatter."""
        self._state = state

    def scatter(self) -> None:
        """Load the first rank's state; nobody else holds more of it than one whole tensor."""
        outline = broadcast_from_rank0(lambda: tree_map_only(Tensor, _outline, self._state))
        values = iter(tree_leaves(self._state)) if is_first() else repeat(None)
        own: Any = None  # tensors that are sharded as those of the state shall be
        if isinstance(self._part, nn.Module):
            own, level = self._part.state_dict(), 0  # by name
        else:
            own = [weight for group in self._part.param_groups for weight in group["params"]]
            level = 1  # path: "state", number of the weight, name

        def spread(path: Any, part: Any) -> Any:
            value = next(values)
            if not isinstance(part, Tensor) or not part.dim():
                return part
            like = own[path[level].key]
            value = torch.empty_like(part, device=like.device) if value is None else value.to(like.device)
            if isinstance(like, DTensor):
                return distribute_tensor(value, like.device_mesh, like.placements)
            dist.broadcast(value, 0)
            return value

        self._part.load_state_dict(tree_map_with_path(spread, outline))
        self._state = {}


def _outline(tensor: Tensor) -> Tensor:
    """A number as it is, of all else the shape."""
    return tensor.to("meta") if tensor.dim() else tensor
