"""The Vision Transformer encoder: a timm model that runs on a subset of patches.

Owns building a timm ViT without class token, registers, pooling and head, and running it on the patches that a mask
keeps. Leaves masks and objectives out. Parameters are named as timm and the published checkpoints name them.

Shape suffixes: B images, C channels, H W pixels, N patches of the grid, K kept patches, D width, P values of a
patch. A leading R counts rows of indices: a multiple of B.
"""

from __future__ import annotations

import difflib
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from jepa_core.attention import attention_mask
from jepa_core.blocks import call
from jepa_core.masks import PatchGrid
from jepa_core.positions import sincos_positions
from jepa_core.vit_defaults import vit_defaults
from jepa_core.weights import build_untouched, initialise, part_generator

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


class Encoder(nn.Module):
    """A ViT over all patches of an image or over some of them; `checkpointing` is set by `execution`."""

    position_ND: Tensor
    entrances: ClassVar[tuple[str, ...]] = ("forward", "layers", "features_with_token", "features_of_crops")
    """The methods that run the encoder from images on; the others are parts of them."""

    def __init__(self, vit: Any, grid: PatchGrid) -> None:
        super().__init__()
        self.checkpointing = False
        self.grid = grid
        self.width: int = vit.embed_dim
        self.depth: int = len(vit.blocks)
        self.num_heads: int = vit.blocks[0].attn.num_heads
        self.patch_embed: Any = vit.patch_embed
        self.norm_pre: nn.Module = vit.norm_pre
        self.blocks: nn.Sequential = vit.blocks
        self.norm: nn.Module = vit.norm
        positions = sincos_positions(grid.rows, grid.columns, self.width)
        self.register_buffer("position_ND", positions, persistent=False)

    def forward(
        self, images_BCHW: Tensor, indices_RK: Tensor | None = None, valid_RK: Tensor | None = None
    ) -> Tensor:
        """Features after the final norm: [B, N, D], or [R, K, D] of the patches in `indices_RK`.

        `images_BCHW` are normalised. `indices_RK` has R = B rows, or a multiple of B: then row r belongs to image
        r mod B. `valid_RK` is False for padding, which no token attends to and whose features mean nothing; each
        row needs one valid patch.
        """
        patches_BNP = patchify(images_BCHW, self.grid)
        if indices_RK is None:
            tokens = self._embed(patches_BNP) + self.position_ND
        else:
            repeats = len(indices_RK) // len(patches_BNP)
            patches_RNP = patches_BNP.repeat(repeats, 1, 1) if repeats > 1 else patches_BNP
            tokens = self._embed(gather_patches(patches_RNP, indices_RK)) + self.position_ND[indices_RK]
        return self._run(tokens, attention_mask(valid_RK))

    def features_with_token(self, images_BCHW: Tensor, hidden_BK: Tensor, token_D: Tensor) -> Tensor:
        """Features [B, N, D] of whole images whose patches in `hidden_BK` are replaced by a token."""
        tokens_BND = self._embed(patchify(images_BCHW, self.grid))
        no_BN1 = torch.zeros_like(tokens_BND[..., :1], dtype=torch.bool)
        is_hidden_BN1 = no_BN1.scatter(1, hidden_BK[..., None], True)
        tokens_BND = torch.where(is_hidden_BN1, token_D.to(tokens_BND.dtype), tokens_BND)
        return self._run(tokens_BND + self.position_ND)

    def features_of_crops(self, crops_BCHW: Tensor, grid: PatchGrid, position_ND: Tensor) -> Tensor:
        """Features of images of another size, whose patch grid and position embedding are given."""
        return self._run(self._embed(patchify(crops_BCHW, grid)) + position_ND)

    def _run(self, tokens_RKD: Tensor, mask: Tensor | None = None) -> Tensor:
        """Features after the final norm from embedded tokens with positions: [R, K, D]."""
        tokens = self.norm_pre(tokens_RKD)
        for block in self.blocks:
            tokens = call(block, tokens, mask, checkpointing=self.checkpointing)
        features: Tensor = self.norm(tokens)
        return features

    def layers(self, images_BCHW: Tensor, *, last: int | None = None) -> list[Tensor]:
        """The outputs of the `last` blocks over the whole image, before the final norm: [B, N, D] each, in order.

        None gives every block's.
        """
        tokens = self.norm_pre(self._embed(patchify(images_BCHW, self.grid)) + self.position_ND)
        first = 0 if last is None else max(0, self.depth - last)
        outputs: list[Tensor] = []
        for number, block in enumerate(self.blocks):
            tokens = block(tokens)
            if number >= first:
                outputs.append(tokens)
        return outputs

    def _embed(self, patches_P: Tensor) -> Tensor:
        """The patch convolution as a matrix product, so that only kept patches are embedded."""
        kernel = self.patch_embed.proj
        tokens: Tensor = self.patch_embed.norm(F.linear(patches_P, kernel.weight.flatten(1), kernel.bias))
        return tokens


def patchify(images_BCHW: Tensor, grid: PatchGrid) -> Tensor:
    """Cut images into patches: [B, N, C * height * width], patches row by row, values as a convolution sees them."""
    batch, channels, height, width = images_BCHW.shape
    tall, wide = height // grid.rows, width // grid.columns
    if (tall * grid.rows, wide * grid.columns) != (height, width):
        raise ValueError(
            f"images of {height}x{width} px cannot be cut into {grid.rows}x{grid.columns} patches"
        )
    cut = images_BCHW.reshape(batch, channels, grid.rows, tall, grid.columns, wide)
    return cut.permute(0, 2, 4, 1, 3, 5).reshape(batch, grid.num_patches, -1)


def gather_patches(tokens_RND: Tensor, indices_RK: Tensor) -> Tensor:
    """The tokens at `indices_RK` of each row: [R, K, D]."""
    return tokens_RND.gather(1, indices_RK[:, :, None].expand(-1, -1, tokens_RND.shape[-1]))


def build_encoder(settings: EncoderSettings, *, generator: torch.Generator | None = None) -> Encoder:
    """Build an untrained encoder.

    `generator` draws the weights; None is seed 0. The global random state is neither used nor changed.

    Raises:
        ValueError: The name is no timm Vision Transformer, or the dimensions do not fit each other.
    """
    vit = build_untouched(lambda: _timm_vit(settings))
    encoder = Encoder(vit, settings.grid)
    initialise(encoder, generator or part_generator(0, "encoder"))
    return encoder


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


def _timm_vit(settings: EncoderSettings) -> Any:
    import timm  # here, since reading settings should not wait seconds for timm and torchvision

    check_encoder_name(settings.name)
    overrides = {"embed_dim": settings.width, "depth": settings.depth, "num_heads": settings.num_heads}
    options: dict[str, Any] = {key: value for key, value in overrides.items() if value is not None}
    try:
        vit = timm.create_model(
            settings.name,
            img_size=settings.image_size_px,
            patch_size=settings.patch_px,
            class_token=False,
            reg_tokens=0,
            pos_embed="none",
            global_pool="",
            fc_norm=False,
            num_classes=0,
            weight_init="skip",
            **options,
        )
    except (TypeError, AssertionError) as err:
        raise ValueError(f"timm cannot build {settings.name!r} with these dimensions: {err}") from err
    if not all(hasattr(block, "attn") and hasattr(block, "mlp") for block in vit.blocks):
        raise ValueError(
            f"{settings.name!r} has parallel blocks; only plain Transformer blocks are supported"
        )
    return vit
