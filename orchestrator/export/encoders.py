"""Writing an encoder to a folder that another library loads.

Owns the files; which weight goes where is `jepa_core.interop`'s. timm and transformers need nothing beside the
package's own dependencies to be written; ONNX needs the `export` extra.
"""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from jepa_core.encoder import Encoder, EncoderSettings, build_encoder, height_and_width
from jepa_core.interop import timm_arguments, timm_weights, transformers_config, transformers_weights
from orchestrator.errors import CheckpointError, OrchestratorError

Kind = Literal["timm", "transformers", "onnx"]
KINDS: tuple[Kind, ...] = ("timm", "transformers", "onnx")
_OPSET = 20


@dataclass(frozen=True, kw_only=True)
class ExportedEncoder:
    """An encoder and what its images must be normalised with, of colour values in 0 to 1."""

    encoder: Encoder
    settings: EncoderSettings
    mean: tuple[float, float, float]
    std: tuple[float, float, float]


def encoder_of(
    tensors: Mapping[str, Tensor], settings: EncoderSettings, *, part: Literal["target", "context"] = "target"
) -> Encoder:
    """The target or the context encoder of a checkpoint's tensors, in inference mode.

    Raises:
        CheckpointError: The checkpoint has no such encoder, or another one than `settings` describe.
    """
    encoder = build_encoder(settings)
    for name in (f"{part}_encoder", "context_encoder"):  # a method without a teacher has the second alone
        prefix = f"objective/{name}."
        found = {key.removeprefix(prefix): value for key, value in tensors.items() if key.startswith(prefix)}
        if found:
            break
    try:
        encoder.load_state_dict(found, strict=True)
    except RuntimeError as err:
        raise CheckpointError(f"the checkpoint does not hold this configuration's encoder: {err}") from err
    return encoder.eval()


def export_encoder(exported: ExportedEncoder, kind: Kind, folder: Path) -> list[Path]:
    """Write the encoder to `folder`, which is made; returns the files.

    Raises:
        OrchestratorError: A library is missing, or the other side has no such encoder.
    """
    write = {"timm": _write_timm, "transformers": _write_transformers, "onnx": _write_onnx}[kind]
    folder.mkdir(parents=True, exist_ok=True)
    try:
        return write(exported, folder)
    except ValueError as err:
        raise OrchestratorError(f"cannot export to {kind}: {err}") from err


def _write_timm(exported: ExportedEncoder, folder: Path) -> list[Path]:
    """A timm folder: `timm.create_model("local-dir:FOLDER", pretrained=True)` loads it."""
    config = {
        "architecture": exported.settings.name.split(".")[0],
        "num_classes": 0,
        "num_features": exported.encoder.width,
        "global_pool": "avg",
        "model_args": timm_arguments(exported.settings),
        "pretrained_cfg": {
            "input_size": [3, *height_and_width(exported.settings.image_size_px)],
            "fixed_input_size": True,
            "interpolation": "bilinear",
            "crop_pct": 1.0,
            "mean": list(exported.mean),
            "std": list(exported.std),
            "num_classes": 0,
            "first_conv": "patch_embed.proj",
            "classifier": "head",
        },
    }
    return [
        _write_json(folder / "config.json", config),
        _write_weights(folder / "model.safetensors", timm_weights(exported.encoder)),
    ]


def _write_transformers(exported: ExportedEncoder, folder: Path) -> list[Path]:
    """A transformers folder: `IJepaModel.from_pretrained(FOLDER)` loads it."""
    size = dict(zip(("height", "width"), height_and_width(exported.settings.image_size_px), strict=True))
    preprocessor = {
        "image_processor_type": "ViTImageProcessor",
        "do_rescale": True,
        "rescale_factor": 1 / 255,
        "do_normalize": True,
        "image_mean": list(exported.mean),
        "image_std": list(exported.std),
        "do_resize": True,
        "size": size,
        "resample": 2,
    }
    return [
        _write_json(folder / "config.json", transformers_config(exported.encoder, exported.settings)),
        _write_json(folder / "preprocessor_config.json", preprocessor),
        _write_weights(folder / "model.safetensors", transformers_weights(exported.encoder)),
    ]


class _WithPooled(nn.Module):
    """Features of every patch, and their average."""

    def __init__(self, encoder: Encoder) -> None:
        super().__init__()
        self.encoder = encoder

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Features [B, N, D] and [B, D] of normalised images."""
        tokens: Tensor = self.encoder(images)
        return tokens, tokens.mean(dim=1)


def _write_onnx(exported: ExportedEncoder, folder: Path) -> list[Path]:
    """`model.onnx`: normalised float32 `images` [B, 3, H, W] to `features` [B, N, D] and `pooled` [B, D]."""
    missing = [name for name in ("onnx", "onnxscript") if importlib.util.find_spec(name) is None]
    if missing:
        raise OrchestratorError(f"ONNX export needs {', '.join(missing)}: pip install 'orchestrator[export]'")
    size_px = exported.settings.image_size_px
    model = _WithPooled(exported.encoder.cpu().float()).eval()
    program: Any = torch.onnx.export(
        model,
        (torch.zeros(2, 3, *height_and_width(size_px)),),
        dynamo=True,
        input_names=["images"],
        output_names=["features", "pooled"],
        dynamic_shapes={"images": {0: torch.export.Dim("batch", min=1)}},
        opset_version=_OPSET,
        verbose=False,
    )
    path = folder / "model.onnx"
    program.save(str(path), external_data=False)
    preprocessing = {"mean": list(exported.mean), "std": list(exported.std), "image_size_px": size_px}
    return [path, _write_json(folder / "preprocessing.json", preprocessing)]


def _write_json(path: Path, content: Mapping[str, Any]) -> Path:
    path.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
    return path


def _write_weights(path: Path, weights: dict[str, Tensor]) -> Path:
    save_file({name: value.float() for name, value in weights.items()}, path, metadata={"format": "pt"})
    return path
