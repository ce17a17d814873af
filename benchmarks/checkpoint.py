"""Checkpoints: our save (safetensors, SHA-256, manifest) and verified load against `torch.save` and `torch.load`.

A ViT-T/16 run's whole state, to a folder on this machine's disk. Ours does more: it hashes every byte and writes the
manifest last, and loading verifies it. Needs `orchestrator` beside `jepa_core`.
"""

from __future__ import annotations

import hashlib
import io
import tempfile
from pathlib import Path

import torch
from harness import benchmark_device, guard, interleave, median, ratio, seconds, write_result

from jepa_core.ema import EmaSettings
from jepa_core.encoder import EncoderSettings
from jepa_core.objectives import IJepaSettings
from jepa_core.optim import OptimizerSettings
from jepa_core.predictor import PredictorSettings
from jepa_core.step import TrainState, create_state
from orchestrator.config.models import StorageConfig
from orchestrator.storage import open_store
from orchestrator.train.loop.checkpoint import load_checkpoint, save_checkpoint

MODEL = "vit_tiny_patch16_224"


def trained_state(device: torch.device) -> TrainState:
    """A state whose optimiser has its moments."""
    state = create_state(
        encoder=EncoderSettings(name=MODEL),
        predictor=PredictorSettings(),
        objective=IJepaSettings(),
        optimizer=OptimizerSettings(),
        ema=EmaSettings(),
        total_steps=10,
        seed=0,
        device=device,
    )
    for parameter in state.objective.parameters():
        if parameter.requires_grad:
            parameter.grad = torch.ones_like(parameter)
    state.optimizer.step()
    return state


def main() -> None:
    device = benchmark_device()
    saved = trained_state(device).state_dict()
    size = sum(value.numel() * value.element_size() for value in saved["tensors"].values())
    with tempfile.TemporaryDirectory() as folder:
        store, plain = open_store(folder, StorageConfig()), Path(folder) / "plain.pt"
        step = 1

        def save_ours() -> None:
            nonlocal step
            step += 1
            save_checkpoint(store, step=step, tensors=saved["tensors"], meta={"state": saved["meta"]}, keep=1)

        def load_ours() -> None:
            load_checkpoint(store, f"step-{step:010d}")

        saves = interleave({"plain": lambda: torch.save(saved, plain), "ours": save_ours}, device, rounds=5)
        loads = interleave(
            {"plain": lambda: torch.load(plain, weights_only=True), "ours": load_ours}, device, rounds=5
        )
    data = io.BytesIO(b"0" * size).getbuffer()
    hashing = min(seconds(lambda: hashlib.sha256(data), device) for _ in range(5))
    figures = {
        "model": MODEL,
        "megabytes": round(size / 1e6, 1),
        "save_ms": {name: round(1000 * median(values), 1) for name, values in saves.items()},
        "load_ms": {name: round(1000 * median(values), 1) for name, values in loads.items()},
        "share_of_hashing_rate": {
            "save": guard("save", hashing, min(saves["ours"])),
            "load": guard("load", hashing, min(loads["ours"])),
        },
        "times_faster": {
            "save": ratio(saves["plain"], saves["ours"]),
            "load": ratio(loads["plain"], loads["ours"]),
        },
    }
    write_result("checkpoint", device, figures, required={})


if __name__ == "__main__":
    main()
