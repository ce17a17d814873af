"""The presets of the paper's models, built without memory and counted."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from jepa_core.encoder import _timm_vit
from orchestrator.config import load_config

PRESETS = Path(__file__).parents[2] / "sweeps" / "presets"
MILLIONS = {"s16": 21.6, "b16": 85.6, "l16": 303.1, "h14": 630.4, "g16": 1011.1}


@pytest.mark.parametrize(("name", "millions"), MILLIONS.items())
def test_a_preset_is_the_papers_model(name: str, millions: float) -> None:
    config = load_config(PRESETS / f"{name}.yaml")
    with torch.device("meta"):
        vit = _timm_vit(config.encoder)
    count = sum(value.numel() for value in vit.parameters())
    assert count / 1e6 == pytest.approx(millions, rel=2e-3)
    assert config.predictor.width == 384


def test_every_preset_is_tested() -> None:
    assert {path.stem for path in PRESETS.glob("*.yaml")} == set(MILLIONS)
