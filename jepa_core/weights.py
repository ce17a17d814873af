"""Initial weights as a function of a seed.

Owns how a module is filled and how one run seed becomes the seeds of its parts. Weights are always drawn on the
CPU, so that a run starts from the same ones on every device.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import TypeVar

import torch
from torch import Tensor, nn

_STD = 0.02
Module = TypeVar("Module", bound=nn.Module)


def part_generator(seed: int, part: str) -> torch.Generator:
    """A CPU generator for one part of a run: another part or another seed gives independent draws."""
    digest = hashlib.blake2b(f"{seed}/{part}".encode(), digest_size=8).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest, "little") >> 1)


def build_untouched(build: Callable[[], Module]) -> Module:
    """Call `build` on the CPU and leave the global random state as it was.

    Layers draw default weights from the global state when they are made; `initialise` replaces them. Within
    `torch.device("meta")` the modules are built there: shapes without weights, for whoever only wants to count.
    """
    with torch.random.fork_rng(devices=[]), torch.device("meta" if _on_meta() else "cpu"):
        torch.manual_seed(0)
        return build()


def _on_meta() -> bool:
    return torch.get_default_device().type == "meta"


@torch.no_grad()
def initialise(module: nn.Module, generator: torch.Generator) -> None:
    """Fill the linear and patch-embedding layers of `module` with N(0, 0.02), their biases and norms with 0 and 1.

    Source: the effective initial weights of the published implementation, which has no rescaling with depth.
    """
    for layer in module.modules():
        if isinstance(layer, (nn.Linear, nn.Conv2d)):
            draw(layer.weight, generator)
            if layer.bias is not None:
                layer.bias.zero_()
        elif isinstance(layer, nn.LayerNorm) and layer.elementwise_affine:
            layer.weight.fill_(1.0)
            if layer.bias is not None:
                layer.bias.zero_()


@torch.no_grad()
def draw(tensor: Tensor, generator: torch.Generator) -> None:
    """Fill `tensor` with a normal distribution of standard deviation 0.02, cut at -2 and 2."""
    if tensor.is_meta:
        return
    nn.init.trunc_normal_(tensor, std=_STD, a=-2.0, b=2.0, generator=generator)
