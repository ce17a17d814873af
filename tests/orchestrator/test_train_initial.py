from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from core_models import ENCODER, PREDICTOR, tiny_state

from jepa_core.predictor import PredictorSettings
from orchestrator.config.models import StorageConfig
from orchestrator.errors import CheckpointError
from orchestrator.train.initial import load_initial

THEIR_NAMES = (
    ("embed.", "predictor_embed."),
    ("blocks.", "predictor_blocks."),
    ("norm.", "predictor_norm."),
    ("project.", "predictor_proj."),
)


def publish(path: Path, *parts: str, seed: int = 7) -> dict[str, Any]:
    """Write a checkpoint file as the published implementation does; returns the weights by our names."""
    module = tiny_state(seed=seed).objective
    with torch.no_grad():
        module.target_encoder.norm.bias.fill_(0.5)
    names = {"encoder": "context_encoder", "target_encoder": "target_encoder", "predictor": "predictor"}
    content: dict[str, Any] = {
        "epoch": 3,
        "opt": {"state": {}, "param_groups": [{"lr": 1e-3}]},
        "scaler": None,
    }
    for part in parts:
        weights = {"pos_embed": torch.zeros(1, 36, 32)}
        for name, value in getattr(module, names[part]).state_dict().items():
            theirs = next((b + name.removeprefix(a) for a, b in THEIR_NAMES if name.startswith(a)), name)
            weights[theirs if part == "predictor" else name] = value
        content[part] = {f"module.{name}": value for name, value in weights.items()}
    torch.save(content, path)
    return {name: value.clone() for name, value in module.state_dict().items()}


def test_every_part_of_a_published_checkpoint_is_taken_over(tmp_path: Path) -> None:
    path, state = tmp_path / "in1k-ep300.pth.tar", tiny_state()
    expected = publish(path, "encoder", "predictor", "target_encoder")
    load_initial(state, str(path), StorageConfig())
    for name, value in state.objective.state_dict().items():
        assert torch.equal(value, expected[name]), name


def test_a_file_with_one_encoder_gives_both_and_leaves_the_predictor(tmp_path: Path) -> None:
    path, state, untouched = tmp_path / "target.pth", tiny_state(), tiny_state().objective.state_dict()
    expected = publish(path, "target_encoder")
    load_initial(state, str(path), StorageConfig())
    assert torch.equal(state.objective.context_encoder.norm.bias, expected["target_encoder.norm.bias"])
    assert torch.equal(
        state.objective.state_dict()["predictor.mask_token"], untouched["predictor.mask_token"]
    )


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"encoder": {"depth": 3}}, r"another context_encoder than encoder\.\* describes"),
        ({"predictor": {"depth": 3}}, r"another predictor than predictor\.\* describes"),
    ],
)
def test_a_checkpoint_of_another_model_is_refused_with_the_section(
    tmp_path: Path, changes: dict[str, dict[str, int]], message: str
) -> None:
    from dataclasses import replace

    publish(tmp_path / "file.pth", "encoder", "predictor", "target_encoder")
    encoder = replace(ENCODER, **changes.get("encoder", {}))
    predictor: PredictorSettings = replace(PREDICTOR, **changes.get("predictor", {}))
    with pytest.raises(CheckpointError, match=message):
        load_initial(
            tiny_state(encoder=encoder, predictor=predictor), str(tmp_path / "file.pth"), StorageConfig()
        )


class Runs:
    """Something that a careless reader would execute."""

    def __reduce__(self) -> Any:
        return (Path.touch, (Path("executed"),))


def test_nothing_in_a_file_is_executed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    torch.save({"encoder": Runs()}, "bad.pth")
    with pytest.raises(CheckpointError, match="not a readable PyTorch checkpoint"):
        load_initial(tiny_state(), "bad.pth", StorageConfig())
    assert not (tmp_path / "executed").exists()


def test_a_file_without_encoders_is_refused(tmp_path: Path) -> None:
    torch.save({"model": {}}, tmp_path / "other.pth")
    with pytest.raises(CheckpointError, match="neither 'encoder' nor 'target_encoder'"):
        load_initial(tiny_state(), str(tmp_path / "other.pth"), StorageConfig())
