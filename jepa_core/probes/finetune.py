"""Fine-tuning: the whole encoder and a linear head on labelled images, lower layers with lower learning rates.

Shape suffixes: N images, B images of a batch, C channels, H W pixels.
"""

from __future__ import annotations

import copy
import re
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from jepa_core.encoder import Encoder
from jepa_core.optim import decays
from jepa_core.probes.result import ProbeResult, batched
from jepa_core.schedules import warmup_cosine, whole_steps

_BLOCK = re.compile(r"blocks\.(\d+)\.")


@dataclass(frozen=True, kw_only=True)
class FineTuneSettings:
    """AdamW with a learning rate that falls by `layer_decay` from each layer to the one below it."""

    epochs: int = 10
    batch_size: int = 128
    learning_rate: float = 1e-3
    layer_decay: float = 0.65
    weight_decay: float = 0.05
    warmup_fraction: float = 0.1
    horizontal_flip: bool = False


def fine_tune_probe(
    encoder: Encoder,
    train_BCHW: Tensor,
    train_labels: Tensor,
    test_BCHW: Tensor,
    test_labels: Tensor,
    *,
    num_classes: int,
    settings: FineTuneSettings | None = None,
    seed: int = 0,
) -> ProbeResult:
    """Fine-tune a copy of the encoder on normalised images and classify the test images; `encoder` is left alone.

    Source: Clark et al. 2020 and Bao et al. 2022 for the layer-wise decay; MAE (arXiv 2111.06377), appendix A.1.
    Deviates: no mixing of images, label smoothing or drop-path, which need far longer runs than ours to pay.
    """
    settings = settings or FineTuneSettings()
    model = copy.deepcopy(encoder).requires_grad_(True).train()
    head = torch.zeros(num_classes, encoder.width + 1, device=train_BCHW.device, requires_grad=True)
    groups = layer_groups(model, settings.layer_decay, settings.weight_decay)
    groups.append({"params": [head], "scale": 1.0, "weight_decay": settings.weight_decay})
    optimizer = torch.optim.AdamW(groups, lr=settings.learning_rate)
    order = torch.Generator().manual_seed(seed)
    steps = settings.epochs * -(-len(train_BCHW) // settings.batch_size)
    step = 0
    for _ in range(settings.epochs):
        for rows_B in batched(torch.randperm(len(train_BCHW), generator=order), settings.batch_size):
            rate = warmup_cosine(
                step,
                start=0.0,
                peak=settings.learning_rate,
                final=0.0,
                warmup_steps=whole_steps(settings.warmup_fraction, steps),
                total_steps=steps,
            )
            for group in optimizer.param_groups:
                group["lr"] = rate * group["scale"]
            images = _flipped(train_BCHW[rows_B], order) if settings.horizontal_flip else train_BCHW[rows_B]
            loss = F.cross_entropy(_scores(model, head, images), train_labels[rows_B].long())
            optimizer.zero_grad()
            torch.autograd.backward(loss)
            optimizer.step()
            step += 1
    with torch.no_grad():
        parts = batched(test_BCHW, settings.batch_size)
        guesses = torch.cat([_scores(model, head, part).argmax(-1) for part in parts])
    return ProbeResult(correct_N=(guesses == test_labels).cpu())


def layer_groups(encoder: Encoder, layer_decay: float, weight_decay: float) -> list[dict[str, object]]:
    """Parameter groups by layer, with the `scale` of their learning rates, lower towards the patches."""
    groups: dict[tuple[int, bool], list[nn.Parameter]] = {}
    for name, parameter in encoder.named_parameters():
        found = _BLOCK.match(name)
        layer = (
            int(found.group(1)) + 1 if found else 0 if name.startswith("patch_embed") else encoder.depth + 1
        )
        groups.setdefault((layer, decays(name, parameter)), []).append(parameter)
    return [
        {
            "params": parameters,
            "scale": layer_decay ** (encoder.depth + 1 - layer),
            "weight_decay": weight_decay if decayed else 0.0,
        }
        for (layer, decayed), parameters in groups.items()
    ]


def _scores(model: Encoder, head: Tensor, images_BCHW: Tensor) -> Tensor:
    pooled: Tensor = F.layer_norm(model(images_BCHW).mean(dim=1), (model.width,))
    return F.linear(pooled, head[:, :-1], head[:, -1])


def _flipped(images_BCHW: Tensor, generator: torch.Generator) -> Tensor:
    flip = (torch.rand(len(images_BCHW), generator=generator) < 0.5).to(images_BCHW.device)
    return torch.where(flip[:, None, None, None], images_BCHW.flip(-1), images_BCHW)
