"""The Vision Transformer encoder: a timm model that runs on a subset of patches.

Owns building a timm ViT without class token, registers, pooling and head, and running it on the patches that a mask
keeps. Leaves masks and objectives out. Parameters are named as timm and the published checkpoints name them.

Shape suffixes: B images, C channels, H W pixels, N patches of the grid, K kept patches, D width, P values of a
patch. A leading R counts rows of indices: a multiple of B.
"""

from __future__ import annotations

from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from jepa_core.attention import attention_mask
from jepa_core.blocks import call
from jepa_core.geometry import PatchGrid
from jepa_core.positions import sincos_positions
from jepa_core.settings import EncoderSettings as EncoderSettings
from jepa_core.settings import ImageSize as ImageSize
from jepa_core.settings import check_encoder_name as check_encoder_name
from jepa_core.settings import height_and_width as height_and_width
from jepa_core.settings import image_size as image_size
from jepa_core.weights import build_untouched, initialise, part_generator


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
