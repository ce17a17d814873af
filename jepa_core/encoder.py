"""The Vision Transformer encoder: a timm model that runs on a subset of patches."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar


@dataclass(frozen=True, kw_only=True)
class EncoderSettings:
    """The context and the target encoder: a timm Vision Transformer by name, with optional overrides.

    `name` is any timm ViT; None leaves a dimension as timm defines it.
    """

    __pydantic_config__: ClassVar[dict[str, str]] = {"extra": "forbid"}

    name: str = "vit_small_patch16_224"
    image_size_px: int = 224
    patch_size_px: int = 16
    width: int | None = None
    depth: int | None = None
    num_heads: int | None = None
