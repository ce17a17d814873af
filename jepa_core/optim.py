"""AdamW with the published parameter groups and schedules."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import nn

from jepa_core.settings import OptimizerKernel
from jepa_core.settings import OptimizerSettings as OptimizerSettings


def build_optimizer(
    objective: nn.Module, settings: OptimizerSettings, *, kernel: OptimizerKernel = "auto"
) -> torch.optim.AdamW:
    """AdamW over the trainable parameters: weight decay on matrices, none on biases and one-dimensional parameters.

    The `auto` kernel is fused where the device has one. `set_rates` sets the rates before each step.
    """
    trainable = [
        (name, parameter) for name, parameter in objective.named_parameters() if parameter.requires_grad
    ]
    decayed = [parameter for name, parameter in trainable if decays(name, parameter)]
    plain = [parameter for name, parameter in trainable if not decays(name, parameter)]
    groups: list[dict[str, Any]] = [
        {"params": decayed, "decayed": True},
        {"params": plain, "decayed": False, "weight_decay": 0.0},
    ]
    check_groups(objective, [group["params"] for group in groups])
    if kernel == "auto":
        known = all(parameter.device.type in ("cpu", "cuda") for _, parameter in trainable)
        kernel = "fused" if known else "foreach"
    return torch.optim.AdamW(
        [group for group in groups if group["params"]],
        lr=settings.learning_rate,
        betas=settings.betas,
        eps=settings.epsilon,
        weight_decay=settings.weight_decay,
        fused=kernel == "fused",
        foreach=kernel == "foreach",
    )


def decays(name: str, parameter: nn.Parameter) -> bool:
    """Whether weight decay applies: not to biases, not to one-dimensional parameters."""
    return parameter.ndim > 1 and not name.endswith("bias")


def check_groups(module: nn.Module, groups: Sequence[Iterable[nn.Parameter]]) -> None:
    """Refuse groups that do not hold every trainable parameter of `module` exactly once.

    Raises:
        ValueError: A parameter is missing, is there twice, or is not trainable.
    """
    counts: dict[int, int] = {}
    for group in groups:
        for parameter in group:
            counts[id(parameter)] = counts.get(id(parameter), 0) + 1
    wrong = [
        name
        for name, parameter in module.named_parameters()
        if counts.pop(id(parameter), 0) != parameter.requires_grad
    ]
    if wrong or counts:
        raise ValueError(
            f"every trainable parameter must be in one group once; wrong: {wrong}, not of the module: {len(counts)}"
        )


def set_rates(optimizer: torch.optim.Optimizer, *, learning_rate: float, weight_decay: float) -> None:
    """Set the rates of the coming step; weight decay only where the group has it."""
    for group in optimizer.param_groups:
        group["lr"] = learning_rate
        if group["decayed"]:
            group["weight_decay"] = weight_decay
