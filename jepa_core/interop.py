"""Weights in the forms that others read and write: the published checkpoints, timm and transformers.

Owns the mapping between state-dict keys. The encoders' keys are timm's; the published checkpoints' agree but for the
position embedding, which is fixed and therefore not stored here; the published predictor's have other names. Leaves
out files of ours: `orchestrator` owns those.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, BinaryIO, TypeVar

import torch
from torch import Tensor

from jepa_core.encoder import Encoder, EncoderSettings

PARTS = ("encoder", "target_encoder", "predictor")
_WRAPPER = "module."
_POSITIONS = ("pos_embed", "predictor_pos_embed")
_PREDICTOR_PREFIXES = (
    ("predictor_embed.", "embed."),
    ("predictor_blocks.", "blocks."),
    ("predictor_norm.", "norm."),
    ("predictor_proj.", "project."),
)
_TRANSFORMERS_NAMES = (
    ("patch_embed.proj.", "embeddings.patch_embeddings.projection."),
    ("norm1.", "layernorm_before."),
    ("norm2.", "layernorm_after."),
    ("attn.proj.", "attention.output.dense."),
    ("mlp.fc1.", "intermediate.dense."),
    ("mlp.fc2.", "output.dense."),
)
Value = TypeVar("Value")


def from_reference(part: str, weights: Mapping[str, Value]) -> dict[str, Value]:
    """Rename one part of a published checkpoint to our keys.

    `part` is `encoder`, `target_encoder` or `predictor`. Keys may carry the `module.` prefix of data-parallel
    training. Position embeddings are dropped: they are a function of the grid.

    Raises:
        ValueError: The part is unknown.
    """
    if part not in PARTS:
        raise ValueError(f"a published checkpoint has no part {part!r}")
    renamed: dict[str, Value] = {}
    for key, value in weights.items():
        bare = key.removeprefix(_WRAPPER)
        if bare not in _POSITIONS:
            renamed[_ours(bare) if part == "predictor" else bare] = value
    return renamed


def read_published(file: str | Path | BinaryIO, *, name: str | None = None) -> dict[str, dict[str, Tensor]]:
    """The weights of a published checkpoint file, by our names: `context_encoder`, `target_encoder`, `predictor`.

    `name` is what errors call the file. Parts that the file lacks are left out. Nothing but tensors and plain
    containers is unpickled.

    Raises:
        ValueError: The file is no such checkpoint.
    """
    path = name if name is not None else file
    try:
        found: Any = torch.load(file, map_location="cpu", weights_only=True)
    except Exception as err:  # torch raises many kinds, by which byte is wrong
        raise ValueError(f"{path}: not a readable PyTorch checkpoint of plain tensors ({err})") from err
    names = {"encoder": "context_encoder", "target_encoder": "target_encoder", "predictor": "predictor"}
    parts = {part: found[part] for part in PARTS if isinstance(found, Mapping) and part in found}
    if not {"encoder", "target_encoder"} & parts.keys():
        raise ValueError(f"{path}: holds neither 'encoder' nor 'target_encoder'; expected a dict of {PARTS}")
    return {
        names[part]: {key: value.float() for key, value in from_reference(part, weights).items()}
        for part, weights in parts.items()
    }


def timm_arguments(settings: EncoderSettings) -> dict[str, Any]:
    """What `timm.create_model(settings.name, **arguments)` needs to take `timm_weights`.

    The model's output is the average of the features after the final norm: what the probes see.
    """
    changed = {"embed_dim": settings.width, "depth": settings.depth, "num_heads": settings.num_heads}
    return {
        "img_size": settings.image_size_px,
        "patch_size": settings.patch_px,
        "class_token": False,
        "reg_tokens": 0,
        "global_pool": "avg",
        "fc_norm": False,
        "num_classes": 0,
        **{key: value for key, value in changed.items() if value is not None},
    }


def timm_weights(encoder: Encoder) -> dict[str, Tensor]:
    """The state dict of the timm model that `timm_arguments` makes."""
    weights = {name: value.detach().cpu().contiguous() for name, value in encoder.state_dict().items()}
    return {"pos_embed": encoder.position_ND.detach().cpu()[None].clone(), **weights}


def transformers_config(encoder: Encoder, settings: EncoderSettings) -> dict[str, Any]:
    """The `config.json` of a Hugging Face `IJepaModel`.

    Raises:
        ValueError: The encoder has parts that an `IJepaModel` has not.
    """
    block: Any = encoder.blocks[0]
    names = {re.sub(r"^blocks\.\d+\.", "blocks.0.", name) for name in encoder.state_dict()}
    extra = sorted(name for name in names if _transformers_key(name) is None and ".attn.qkv." not in name)
    if extra or not isinstance(block.mlp.act, torch.nn.GELU):
        raise ValueError(f"{settings.name!r} is no plain ViT as an IJepaModel is; unknown to it: {extra}")
    return {
        "architectures": ["IJepaModel"],
        "model_type": "ijepa",
        "hidden_size": encoder.width,
        "num_hidden_layers": encoder.depth,
        "num_attention_heads": encoder.num_heads,
        "intermediate_size": block.mlp.fc1.out_features,
        "hidden_act": "gelu",
        "layer_norm_eps": block.norm1.eps,
        "image_size": settings.image_size_px,
        "patch_size": settings.patch_px,
        "num_channels": encoder.patch_embed.proj.in_channels,
        "qkv_bias": block.attn.qkv.bias is not None,
        "hidden_dropout_prob": 0.0,
        "attention_probs_dropout_prob": 0.0,
        "torch_dtype": "float32",
    }


def transformers_weights(encoder: Encoder) -> dict[str, Tensor]:
    """The weights of a Hugging Face `IJepaModel` without pooler, under the keys of its published checkpoints."""
    found = {"embeddings.position_embeddings": encoder.position_ND.detach().cpu()[None].clone()}
    for name, value in encoder.state_dict().items():
        weight = value.detach().cpu()
        if ".attn.qkv." not in name:
            key = _transformers_key(name)
            assert key is not None, name
            found[key] = weight.contiguous()
            continue
        layer, _, kind = name.partition(".attn.qkv.")
        for part, piece in zip(("query", "key", "value"), weight.chunk(3), strict=True):
            prefix = layer.replace("blocks.", "encoder.layer.")
            found[f"{prefix}.attention.attention.{part}.{kind}"] = piece.clone()
    return found


def _transformers_key(name: str) -> str | None:
    """The key of a weight that has one counterpart, or None where there is none."""
    if name.startswith("norm."):
        return f"layernorm.{name.removeprefix('norm.')}"
    prefix, bare = "", name
    if name.startswith("blocks."):
        _, number, bare = name.split(".", 2)
        prefix = f"encoder.layer.{number}."
    for ours, theirs in _TRANSFORMERS_NAMES:
        if bare.startswith(ours):
            return prefix + theirs + bare.removeprefix(ours)
    return None


def _ours(key: str) -> str:
    for theirs, ours in _PREDICTOR_PREFIXES:
        if key.startswith(theirs):
            return ours + key.removeprefix(theirs)
    return key
