"""Several processes on one run: an objective under DDP, or sharded by FSDP2.

Called by `step` and by the loop around it. Needs an initialised process group only where something is wrapped.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import TYPE_CHECKING, Any, TypeGuard

import torch.distributed as dist
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.nn.parallel import DistributedDataParallel

from jepa_core.encoder import Encoder
from jepa_core.predictor import Predictor

if TYPE_CHECKING:
    from torch.distributed.fsdp import FSDPModule


def shard(module: nn.Module) -> None:
    """Shard parameters over the default process group, in place: encoders block by block, a predictor as a whole.

    Must come before the optimiser is built. Every rank must run every forward pass the same number of times; see
    `gathered` for inference.
    """
    # Here, since importing FSDP takes a second.
    from torch.distributed.fsdp import fully_shard, register_fsdp_forward_method

    mesh = init_device_mesh(next(module.parameters()).device.type, (dist.get_world_size(),))
    for part in list(module.modules()):
        if isinstance(part, Encoder):
            for block in part.blocks:
                fully_shard(block, mesh=mesh)
        if isinstance(part, (Encoder, Predictor)):
            fully_shard(part, mesh=mesh)
        if isinstance(part, Encoder):
            for entrance in part.entrances[1:]:
                register_fsdp_forward_method(part, entrance)
    fully_shard(module, mesh=mesh)


def is_sharded(module: nn.Module) -> TypeGuard[FSDPModule]:
    """Whether `shard` has been over it; nothing has while FSDP is not imported."""
    fsdp = sys.modules.get("torch.distributed.fsdp")
    return fsdp is not None and isinstance(module, fsdp.FSDPModule)


def wrap(objective: nn.Module) -> nn.Module:
    """What `train_step` calls in one of several processes: the objective itself if it is sharded, else under DDP."""
    already: bool = is_sharded(objective)
    if already:
        return objective
    return DistributedDataParallel(objective, broadcast_buffers=False, gradient_as_bucket_view=True)


def gradients_stay_local(model: nn.Module, local: bool) -> AbstractContextManager[Any]:
    """The context of one micro-batch's forward and backward passes: `local` leaves averaging to a later one."""
    if is_sharded(model):
        model.set_requires_gradient_sync(not local)
        return nullcontext()
    return model.no_sync() if local and isinstance(model, DistributedDataParallel) else nullcontext()


@contextmanager
def gathered(module: nn.Module) -> Iterator[None]:
    """Keep the whole parameters of a sharded objective here meanwhile, so that ranks may run it unequally often.

    For inference with it or its parts. Every rank must enter and leave it.
    """
    if is_sharded(module):
        # Otherwise a part that runs before the objective ever has is taken for the root, and training fails.
        state = module._get_fsdp_state()
        if state._is_root is None:
            state._lazy_init()
    sharded = [part for part in module.modules() if is_sharded(part)]
    for part in sharded:
        part.set_reshard_after_forward(False, recurse=False)
        part.unshard()
    try:
        yield
    finally:
        for part in sharded:
            part.set_reshard_after_forward(True, recurse=False)
            part.reshard()
