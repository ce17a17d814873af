"""The target encoder's average: `MovingAverage` against a loop over parameters, on a ViT-B/16 and a ViT-T/16."""

from __future__ import annotations

import copy

import torch
from harness import benchmark_device, guard, interleave, median, ratio, stream_bytes_per_s, write_result
from plain import plain_ema

from jepa_core.ema import MovingAverage, update_ema
from jepa_core.encoder import Encoder, EncoderSettings, build_encoder

MODELS = ("vit_tiny_patch16_224", "vit_base_patch16_224")
MOMENTUM = 0.996
_BYTES_A_PARAMETER = 12
"""Two float32 read and one written."""


def new_encoders(name: str, device: torch.device) -> list[Encoder]:
    """A trained encoder and two equal averages that differ from it."""
    source = build_encoder(EncoderSettings(name=name)).to(device)
    averages = [copy.deepcopy(source), copy.deepcopy(source)]
    with torch.no_grad():
        for parameter in source.parameters():
            parameter.mul_(1.5).add_(0.01)
    return [source, *averages]


def check_same(encoders: list[Encoder]) -> None:
    """Both forms must move the average to the same place."""
    source, first, second = encoders
    update_ema(first, source, MOMENTUM)
    plain_ema(second, source, MOMENTUM)
    for one, other in zip(first.parameters(), second.parameters(), strict=True):
        torch.testing.assert_close(one, other)


def main() -> None:
    device = benchmark_device()
    rows, times_faster = {}, {}
    for name in MODELS:
        encoders = new_encoders(name, device)
        check_same(encoders)
        source, target, _ = encoders
        average = MovingAverage(target, source)
        found = interleave(
            {
                "plain": lambda source=source, target=target: plain_ema(target, source, MOMENTUM),
                "ours": lambda average=average: average.update(MOMENTUM),
            },
            device,
            rounds=21,
            repeats=5,
        )
        size = 4 * sum(value.numel() for value in source.parameters())
        achieved = _BYTES_A_PARAMETER / 4 * size / min(found["ours"])
        limit = stream_bytes_per_s(2 * size, device)
        rows[name] = {
            "plain_ms": round(1000 * median(found["plain"]), 3),
            "ours_ms": round(1000 * median(found["ours"]), 3),
            "share_of_memory_bandwidth": guard(name, achieved, limit),
        }
        times_faster[name] = ratio(found["plain"], found["ours"])
    required = {MODELS[0]: 2.0} if device.type == "cpu" else {}
    write_result("ema", device, {"models": rows, "times_faster": times_faster}, required=required)


if __name__ == "__main__":
    main()
