"""A trained target encoder as a folder of two files: weights in safetensors and a card in JSON.

`encoder_files` writes it, `load_encoder` reads it back, and `mlflow.pyfunc.load_model` reads it through `_load_pyfunc`:
images in, average-pooled features out. Nothing is pickled and no code is read from the folder.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from safetensors.torch import load_file, save
from torch import Tensor

from jepa_core.encoder import Encoder, EncoderSettings, build_encoder, height_and_width
from orchestrator.errors import CheckpointError

WEIGHTS, CARD = "encoder.safetensors", "card.json"
_TARGET, _TRAINED = "objective/target_encoder.", "objective/context_encoder."
_BATCH_IMAGES = 64


@dataclass(frozen=True, kw_only=True)
class EncoderCard:
    """What is needed to build and feed an encoder, and where it comes from (`origin`: run, masks, accuracy)."""

    encoder: EncoderSettings
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    origin: Mapping[str, Any]


def encoder_files(
    card: EncoderCard, tensors: Mapping[str, Tensor], part: Literal["target", "context"] = "target"
) -> dict[str, bytes]:
    """The folder's files out of a run's state: one encoder alone.

    Raises:
        CheckpointError: The state holds no such encoder.
    """
    weights = encoder_weights(tensors, part)
    text = json.dumps(asdict(card), indent=1, default=str)
    return {WEIGHTS: save(weights), CARD: text.encode()}


def encoder_weights(
    tensors: Mapping[str, Tensor], part: Literal["target", "context"] = "target"
) -> dict[str, Tensor]:
    """One encoder's weights out of a run's state; without a teacher the target encoder's are the trained one's.

    Raises:
        CheckpointError: The state holds no such encoder.
    """
    prefixes = (_TARGET, _TRAINED) if part == "target" else (_TRAINED,)
    for prefix in prefixes:
        found = {
            key.removeprefix(prefix): value.detach().cpu().contiguous()
            for key, value in tensors.items()
            if key.startswith(prefix)
        }
        if found:
            return found
    places = " or ".join(f"{prefix}*" for prefix in prefixes)
    raise CheckpointError(f"the checkpoint holds no tensor under {places}")


def load_encoder(folder: str | Path) -> tuple[Encoder, EncoderCard]:
    """The encoder, in evaluation mode on the CPU, and its card.

    Raises:
        CheckpointError: A file is missing, or the weights do not fit the card.
    """
    place = Path(folder)
    try:
        data = json.loads((place / CARD).read_text())
        card = EncoderCard(
            encoder=EncoderSettings(**data["encoder"]),
            mean=tuple(data["mean"]),
            std=tuple(data["std"]),
            origin=data["origin"],
        )
        encoder = build_encoder(card.encoder)
        encoder.load_state_dict(load_file(place / WEIGHTS), strict=True)
    except (OSError, ValueError, KeyError, TypeError, RuntimeError) as err:
        raise CheckpointError(f"{place} is no encoder that this version can load: {err}") from err
    return encoder.eval(), card


@torch.no_grad()
def pooled_features(
    encoder: Encoder, card: EncoderCard, images_BHWC: NDArray[np.uint8]
) -> NDArray[np.float32]:
    """Average-pooled features [B, D] of uint8 RGB images; other sizes are resized to the encoder's."""
    size = height_and_width(card.encoder.image_size_px)
    mean, std = (torch.tensor(values).view(1, 3, 1, 1) for values in (card.mean, card.std))
    pooled = []
    for start in range(0, len(images_BHWC), _BATCH_IMAGES):
        batch = torch.from_numpy(np.ascontiguousarray(images_BHWC[start : start + _BATCH_IMAGES]))
        images = batch.permute(0, 3, 1, 2).float() / 255
        if images.shape[-2:] != size:
            images = F.interpolate(images, size=size, mode="bilinear", antialias=True)
        pooled.append(encoder((images - mean) / std).mean(dim=1))
    features: NDArray[np.float32] = torch.cat(pooled).numpy()
    return features


class _PyfuncEncoder:
    """What MLflow calls."""

    def __init__(self, folder: str) -> None:
        self.encoder, self.card = load_encoder(folder)

    def predict(self, images: Any, params: Mapping[str, Any] | None = None) -> NDArray[np.float32]:
        """Features of uint8 images [B, H, W, 3]."""
        return pooled_features(self.encoder, self.card, np.asarray(images, dtype=np.uint8))


def _load_pyfunc(path: str) -> _PyfuncEncoder:
    """MLflow's door; `path` is the folder of the weights."""
    return _PyfuncEncoder(path)
