"""Tensors that FSDP2 may have sharded, as whole ones and back; everything passes plain tensors through."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, TypeGuard

import torch
import torch.distributed as dist
from torch import Tensor, nn

if TYPE_CHECKING:
    from torch.distributed.tensor import DTensor


def is_sharded(value: Tensor) -> TypeGuard[DTensor]:
    """Whether each process holds only a part of this tensor."""
    if not dist.is_available() or not dist.is_initialized():
        return False
    from torch.distributed.tensor import DTensor  # here, since importing it takes a second

    return isinstance(value, DTensor)


def has_shards(module: nn.Module) -> bool:
    """Whether any parameter of `module` is sharded: then every rank must take part in reading its state."""
    return any(is_sharded(parameter) for parameter in module.parameters())


def whole(value: Tensor) -> Tensor:
    """The whole of a tensor that may be sharded; every rank must call it then."""
    return value.full_tensor() if is_sharded(value) else value


def like(value: Tensor, model: Tensor) -> Tensor:
    """A whole tensor, sharded as `model` is."""
    if not is_sharded(model):
        return value
    from torch.distributed.tensor import distribute_tensor

    return distribute_tensor(value.to(model.device), model.device_mesh, model.placements)


def local_parts(tensors: Sequence[Tensor]) -> list[Tensor]:
    """This process's share of each tensor."""
    return [value.to_local() if is_sharded(value) else value for value in tensors]


@torch.no_grad()
def load_whole(module: nn.Module, weights: Mapping[str, Tensor]) -> None:
    """`load_state_dict(strict=True)` from whole tensors, also into a sharded module.

    Raises:
        RuntimeError: A key is missing, unknown or of another shape.
    """
    own = module.state_dict()
    fitting = {
        name: like(value, own[name]) if name in own and own[name].shape == value.shape else value
        for name, value in weights.items()
    }
    module.load_state_dict(fitting, strict=True)
