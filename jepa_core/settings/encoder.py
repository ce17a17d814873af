"""The settings of the encoders, and the sizes of images as settings write them."""

from __future__ import annotations

import difflib
from dataclasses import dataclass
from typing import ClassVar

from jepa_core.geometry import PatchGrid
from jepa_core.vit_defaults import vit_defaults

ImageSize = int | tuple[int, int]
"""The side of square images, or height and width."""


@dataclass(frozen=True, kw_only=True)
class EncoderSettings:
    """The context and the target encoder: a timm Vision Transformer by name, with optional overrides.

    `name` is any timm ViT; None leaves a dimension as timm defines it.
    """

    __pydantic_config__: ClassVar[dict[str, str]] = {"extra": "forbid"}

    name: str = "vit_small_patch16_224"
    """A timm Vision Transformer; the keys below override its dimensions."""
    image_size_px: ImageSize = 224
    """Side of the square image that the encoder sees, or its [height, width]."""
    patch_size_px: int | None = None
    """Side of a patch; the grid of patches has image_size_px / patch_size_px on a side. Null is that of `name`."""
    width: int | None = None
    """Width of a token; null is that of `name`."""
    depth: int | None = None
    """Transformer blocks; null is that of `name`."""
    num_heads: int | None = None
    """Attention heads a block; null is that of `name`."""

    def __post_init__(self) -> None:
        for key in ("patch_size_px", "width", "depth", "num_heads"):
            value = getattr(self, key)
            if value is not None and value < 1:
                raise ValueError(f"{key} must be at least 1, not {value}")
        self._check_image_size()
        if self.width is not None and self.width % 4:
            raise ValueError(f"width {self.width} must be a multiple of 4 for the position embedding")
        if self.width is not None and self.num_heads is not None and self.width % self.num_heads:
            raise ValueError(
                f"width {self.width} must be a multiple of num_heads ({self.num_heads}); "
                f"try {nearest_multiple(self.width, self.num_heads)}"
            )

    @property
    def patch_px(self) -> int:
        """The side of a patch: `patch_size_px`, or that of `name`.

        Raises:
            ValueError: It is not given, and the name is unknown.
        """
        if self.patch_size_px is not None:
            return self.patch_size_px
        known = vit_defaults(self.name)
        if known is None:
            raise ValueError(f"patch_size_px must be given for {self.name!r}, whose own is not known here")
        return known.patch_size_px

    @property
    def grid(self) -> PatchGrid:
        """The patches of an image.

        Raises:
            ValueError: As `patch_px`.
        """
        height_px, width_px = height_and_width(self.image_size_px)
        return PatchGrid(height_px // self.patch_px, width_px // self.patch_px)

    def _check_image_size(self) -> None:
        size = self.image_size_px
        is_known = self.patch_size_px is not None or vit_defaults(self.name) is not None
        patch = self.patch_px if is_known else 1  # an unknown name is refused where names are checked
        if not isinstance(size, int) and len(size) != 2:
            raise ValueError(f"image_size_px must be a number or [height, width], not {size}")
        height_px, width_px = height_and_width(size)
        if min(height_px, width_px) < 1:
            raise ValueError(f"image_size_px must be at least 1, not {size}")
        # One way of writing a size, so that equal encoders compare as equal: lists come from JSON.
        size = image_size(height_px, width_px)
        object.__setattr__(self, "image_size_px", size)
        if height_px % patch or width_px % patch:
            near = [nearest_multiple(side, patch) for side in (height_px, width_px)]
            raise ValueError(
                f"image_size_px {size} must be a multiple of patch_size_px ({patch}); "
                f"try {near[0] if isinstance(size, int) else near}"
            )


def height_and_width(size_px: ImageSize) -> tuple[int, int]:
    """Height and width of an image size; a number is the side of a square."""
    height_px, width_px = (size_px, size_px) if isinstance(size_px, int) else size_px
    return height_px, width_px


def image_size(height_px: int, width_px: int) -> ImageSize:
    """A size as settings write it: one number for a square."""
    return height_px if height_px == width_px else (height_px, width_px)


def nearest_multiple(value: int, step: int) -> int:
    """The multiple of `step` nearest to `value`, at least `step`."""
    return max(1, round(value / step)) * step


def check_encoder_name(name: str) -> None:
    """Say whether timm has a Vision Transformer of that name; one of the table is known without waiting for timm.

    Raises:
        ValueError: It has none; the message ends with the nearest names. Or its blocks are not plain ones.
    """
    defaults = vit_defaults(name)
    if defaults is not None:
        if not defaults.num_heads:
            raise ValueError(f"{name!r} has parallel blocks; only plain Transformer blocks are supported")
        return
    import timm

    known = timm.list_models(module="vision_transformer")
    if name.split(".")[0] not in known:
        near = difflib.get_close_matches(name.lower(), known, n=3)
        hint = f"; nearest: {', '.join(near)}" if near else ""
        raise ValueError(f"{name!r} is not a timm Vision Transformer{hint}")
