"""AdamW: the kernels of `build_optimizer` against torch's default, on the trained parts of a ViT-T/16 run."""

from __future__ import annotations

import torch
from harness import benchmark_device, guard, interleave, median, ratio, stream_bytes_per_s, write_result

from jepa_core.encoder import EncoderSettings
from jepa_core.objectives import IJepaSettings, build_objective
from jepa_core.optim import OptimizerSettings, build_optimizer, decays
from jepa_core.predictor import PredictorSettings

MODEL = "vit_tiny_patch16_224"
_BYTES_A_PARAMETER = 28
"""Weight, gradient and two moments read, all but the gradient written, in float32."""


def new_model(device: torch.device) -> torch.nn.Module:
    module = build_objective(
        encoder=EncoderSettings(name=MODEL), predictor=PredictorSettings(), objective=IJepaSettings(), seed=0
    ).to(device)
    generator = torch.Generator().manual_seed(0)
    for parameter in module.parameters():
        if parameter.requires_grad:
            parameter.grad = torch.randn(parameter.shape, generator=generator).to(device)
    return module


def default_optimizer(module: torch.nn.Module) -> torch.optim.Optimizer:
    """torch's default kernel, in the published two groups."""
    settings = OptimizerSettings()
    trained = [(name, value) for name, value in module.named_parameters() if value.requires_grad]
    groups = [
        {"params": [value for name, value in trained if decays(name, value)]},
        {"params": [value for name, value in trained if not decays(name, value)], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=settings.learning_rate, weight_decay=settings.weight_decay)


def main() -> None:
    device = benchmark_device()
    modules = {name: new_model(device) for name in ("plain", "ours", "foreach")}
    optimizers = {
        "plain": default_optimizer(modules["plain"]),
        "ours": build_optimizer(modules["ours"], OptimizerSettings()),
        "foreach": build_optimizer(modules["foreach"], OptimizerSettings(), kernel="foreach"),
    }
    for optimizer in optimizers.values():
        optimizer.step()
    for one, other in zip(modules["plain"].parameters(), modules["ours"].parameters(), strict=True):
        torch.testing.assert_close(one, other)
    found = interleave({name: value.step for name, value in optimizers.items()}, device, rounds=15, repeats=2)
    count = sum(value.numel() for value in modules["ours"].parameters() if value.requires_grad)
    limit = stream_bytes_per_s(16 * count, device)
    figures = {
        "model": f"{MODEL} with its predictor, {count} trained parameters",
        "ms": {name: round(1000 * median(values), 3) for name, values in found.items()},
        "share_of_memory_bandwidth": guard("AdamW", _BYTES_A_PARAMETER * count / min(found["ours"]), limit),
        "times_faster": {
            "auto": ratio(found["plain"], found["ours"]),
            "foreach": ratio(found["plain"], found["foreach"]),
        },
    }
    write_result("optimizer", device, figures, required={"auto": 3.0} if device.type == "cpu" else {})


if __name__ == "__main__":
    main()
