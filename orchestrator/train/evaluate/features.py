"""Frozen features of a whole probe set, of one of our encoders or of any timm model, cached by content.

Owns what is read of a model (the pooled last layer, the last four, the patches) and where it is kept. Leaves the probes
out: `probing` runs them.

Shape suffixes: N images, B images of a batch, P patches, D width, C channels, H W pixels.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch
from safetensors import SafetensorError
from safetensors.torch import load as load_safetensors
from safetensors.torch import save as save_safetensors
from torch import Tensor, nn

from jepa_core.encoder import Encoder, ImageSize, image_size
from jepa_core.probes.result import batched
from jepa_core.step import prepare_images
from orchestrator.errors import CheckpointError, ConfigError, Fault
from orchestrator.storage import check_open_files
from orchestrator.text import counted

_BATCH_IMAGES = 128
_CONCATENATED = 4


class FeatureModel(Protocol):
    """What features are read from."""

    @property
    def digest(self) -> str:
        """SHA-256 of the weights and of how they are read."""

    @property
    def image_size_px(self) -> ImageSize:
        """Size of the images that the model takes."""

    @property
    def mean(self) -> tuple[float, float, float]:
        """Subtracted from each colour channel, of values in 0 to 1."""

    @property
    def std(self) -> tuple[float, float, float]:
        """Each colour channel is divided by this."""

    def sets(self, images_BCHW: Tensor) -> dict[str, Tensor]:
        """`last` [B, D], and where there are any `last4` [B, 4 * D] and `patches` [B, P, D], of normalised images."""
        ...


@dataclass(frozen=True, kw_only=True)
class OwnModel:
    """One of our target encoders: features are averages over the patches.

    `last4` is the last four blocks' outputs, each layer-normed as the encoder's final norm does.
    """

    encoder: Encoder
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    digest: str

    @property
    def image_size_px(self) -> ImageSize:
        """Size of the images that the encoder takes."""
        tall, wide = self.encoder.patch_embed.proj.weight.shape[-2:]
        return image_size(self.encoder.grid.rows * tall, self.encoder.grid.columns * wide)

    @torch.no_grad()
    def sets(self, images_BCHW: Tensor) -> dict[str, Tensor]:
        """The feature sets of normalised images."""
        layers = self.encoder.layers(images_BCHW)
        normed = [self.encoder.norm(layer) for layer in layers[-_CONCATENATED:]]
        pooled = [layer.mean(dim=1) for layer in normed]
        return {"last": pooled[-1], "last4": torch.cat(pooled, dim=1), "patches": normed[-1]}


@dataclass(frozen=True, kw_only=True)
class TimmModel:
    """A timm model: `last` is what the library gives before its classifier."""

    model: Any
    image_size_px: ImageSize
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    digest: str

    @torch.no_grad()
    def sets(self, images_BCHW: Tensor) -> dict[str, Tensor]:
        """The feature sets of normalised images; a model without blocks has no `last4` and no `patches`."""
        tokens = self.model.forward_features(images_BCHW)
        found = {"last": self.model.forward_head(tokens, pre_logits=True)}
        if tokens.ndim == 3 and hasattr(self.model, "forward_intermediates"):
            layers = self.model.forward_intermediates(
                images_BCHW, indices=_CONCATENATED, norm=True, output_fmt="NLC", intermediates_only=True
            )
            found["last4"] = torch.cat([layer.mean(dim=1) for layer in layers], dim=1)
            found["patches"] = tokens[:, int(getattr(self.model, "num_prefix_tokens", 0)) :]
        return found


def open_timm(name: str, weights: str | None, *, pretrained: bool) -> TimmModel:
    """A timm model by name, in evaluation mode, with weights of a safetensors file if one is given.

    Raises:
        ConfigError: timm has no such model.
        CheckpointError: The file does not fit the model, or weights could not be fetched.
    """
    import timm

    if name.split(".")[0] not in timm.list_models():
        near = timm.list_models(f"*{name[:12]}*")[:3]
        raise ConfigError(
            [
                Fault(
                    key=f"timm:{name}",
                    rule="is no timm model",
                    remedy=f"near: {', '.join(near)}" if near else "",
                )
            ]
        )
    try:
        model = timm.create_model(name, pretrained=pretrained)
        if weights is not None:
            model.load_state_dict(load_safetensors(Path(weights).read_bytes()), strict=True)
    except Exception as err:  # timm and the hub raise errors of many kinds, none of which says what to do
        check_open_files(err, f"timm:{name}: cannot load the weights")
        raise CheckpointError(
            f"timm:{name}: {type(err).__name__}: {err}; give a safetensors file of this very model with --weights"
        ) from err
    data = timm.data.resolve_model_data_config(model)
    return TimmModel(
        model=model.eval(),
        image_size_px=image_size(*data["input_size"][-2:]),
        mean=tuple(data["mean"]),
        std=tuple(data["std"]),
        digest=weights_digest(model, name),
    )


def weights_digest(model: nn.Module, kind: str) -> str:
    """A hash of a model's weights and of a word for how they are read."""
    found = hashlib.sha256(kind.encode())
    for name, value in sorted(model.state_dict().items()):
        found.update(name.encode())
        found.update(value.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().tobytes())
    return found.hexdigest()


@torch.no_grad()
def extract_sets(
    model: FeatureModel, images_uint8_NCHW: Tensor, *, progress: Callable[[str], None] = lambda text: None
) -> dict[str, Tensor]:
    """Every feature set of uint8 images, float32; `patches` in float16, since it is large."""
    parts: dict[str, list[Tensor]] = {}
    chunks = batched(images_uint8_NCHW, _BATCH_IMAGES)
    for number, chunk in enumerate(chunks, start=1):
        images = prepare_images(chunk, model.mean, model.std, "cpu")
        for name, values in model.sets(images).items():
            parts.setdefault(name, []).append(values.half() if name == "patches" else values.float())
        progress(f"features: {counted(min(number * _BATCH_IMAGES, len(images_uint8_NCHW)), 'image')}")
    return {name: torch.cat(values) for name, values in parts.items()}


@dataclass(frozen=True)
class FeatureCache:
    """Feature sets in a folder, by what they were computed from; a file that cannot be read is computed again."""

    folder: Path

    def get(self, basis: Mapping[str, Any], compute: Callable[[], dict[str, Tensor]]) -> dict[str, Tensor]:
        """The stored sets of this basis, or those that are computed and then stored."""
        key = hashlib.sha256(json.dumps(basis, sort_keys=True, default=str).encode()).hexdigest()[:32]
        path = self.folder / f"{key}.safetensors"
        stored = _stored(path)
        if stored is not None:
            return stored
        found = compute()
        self.folder.mkdir(parents=True, exist_ok=True)
        part = path.with_suffix(f".{os.getpid()}.part")
        part.write_bytes(save_safetensors({name: value.contiguous() for name, value in found.items()}))
        part.replace(path)
        return found


def _stored(path: Path) -> dict[str, Tensor] | None:
    try:
        found: dict[str, Tensor] = load_safetensors(path.read_bytes())
    except (OSError, SafetensorError):
        return None
    return found
