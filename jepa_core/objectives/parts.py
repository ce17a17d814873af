"""Parts that several methods share: decoders, mask tokens, pixel targets, averaged layers, collectives.

Shape suffixes: B images, N patches of the grid, K visible patches, T hidden patches, D encoder width, E decoder
width, P values of a patch, L layers.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn

from jepa_core.blocks import run_tail
from jepa_core.encoder import Encoder, gather_patches, patchify
from jepa_core.masks import PatchGrid
from jepa_core.positions import sincos_positions
from jepa_core.weights import draw, initialise

NORM_EPSILON = 1e-6
_PIXEL_EPSILON = 1e-6


class MaskedDecoder(nn.Module):
    """Transformer blocks over the visible patches' features and mask tokens, read at the hidden patches.

    Source: He et al. 2022 (MAE, arXiv 2111.06377), section 3, "MAE decoder".
    """

    position_NE: Tensor

    def __init__(
        self, *, grid: PatchGrid, encoder_width: int, width: int, depth: int, num_heads: int, outputs: int
    ) -> None:
        super().__init__()
        self.embed = nn.Linear(encoder_width, width)
        self.mask_token = nn.Parameter(torch.zeros(1, 1, width))
        self.blocks = transformer_blocks(width, depth, num_heads)
        self.norm = nn.LayerNorm(width, eps=NORM_EPSILON)
        self.project = nn.Linear(width, outputs)
        positions = sincos_positions(grid.rows, grid.columns, width)
        self.register_buffer("position_NE", positions, persistent=False)

    def forward(self, features_BKD: Tensor, visible_BK: Tensor, hidden_BT: Tensor) -> Tensor:
        """Outputs at the hidden patches, [B, T, outputs]."""
        visible = self.embed(features_BKD) + self.position_NE[visible_BK]
        hidden = (self.mask_token + self.position_NE[hidden_BT]).to(visible.dtype)
        tokens = torch.cat([visible, hidden], dim=1)
        *inner, last = self.blocks
        for block in inner:
            tokens = block(tokens)
        outputs: Tensor = self.project(self.norm(run_tail(last, tokens, visible_BK.shape[1], None)))
        return outputs


def transformer_blocks(width: int, depth: int, num_heads: int) -> nn.Sequential:
    """Plain timm blocks, as the encoder's.

    Raises:
        ValueError: The width is no multiple of the heads.
    """
    from timm.models.vision_transformer import Block  # here, since importing timm takes seconds

    if width % num_heads:
        raise ValueError(f"width {width} must be a multiple of its {num_heads} heads")
    norm = partial(nn.LayerNorm, eps=NORM_EPSILON)
    return nn.Sequential(*(Block(width, num_heads, qkv_bias=True, norm_layer=norm) for _ in range(depth)))


def seeded(module: nn.Module, generator: torch.Generator) -> None:
    """Fill the layers of a part, then its mask tokens and other free parameters, from one generator."""
    initialise(module, generator)
    layers = {id(value) for layer in module.modules() for value in _layer_parameters(layer)}
    for parameter in module.parameters():
        if id(parameter) not in layers:
            draw(parameter, generator)


def _layer_parameters(layer: nn.Module) -> list[nn.Parameter]:
    return list(layer.parameters(recurse=False)) if isinstance(layer, _FILLED) else []


_FILLED = (nn.Linear, nn.Conv2d, nn.LayerNorm)


def patch_pixels(images_BCHW: Tensor, grid: PatchGrid, *, normalize: bool) -> Tensor:
    """The pixels of every patch [B, N, P], each patch with mean 0 and variance 1 if `normalize`.

    Source: He et al. 2022 (MAE), section 3, "Reconstruction target"; the variance divides by P - 1.
    """
    pixels_BNP = patchify(images_BCHW, grid)
    if not normalize:
        return pixels_BNP
    mean, variance = pixels_BNP.mean(-1, keepdim=True), pixels_BNP.var(-1, keepdim=True)
    return (pixels_BNP - mean) / (variance + _PIXEL_EPSILON).sqrt()


def hidden_pixels(images_BCHW: Tensor, hidden_BT: Tensor, grid: PatchGrid, *, normalize: bool) -> Tensor:
    """The pixels of the hidden patches [B, T, P]."""
    return gather_patches(patch_pixels(images_BCHW, grid, normalize=normalize), hidden_BT)


def patch_values(encoder: Encoder) -> int:
    """Values of a patch, P: channels times its area."""
    return int(encoder.patch_embed.proj.weight[0].numel())


def averaged_layers(layers: Sequence[Tensor], *, over_patches: bool) -> Tensor:
    """The layer-normed mean of normalised layers: [B, N, D], without affine parameters.

    Each layer is normalised over its width, or over the patches of an image for each feature (`over_patches`).

    Source: Baevski et al. 2022 (data2vec, arXiv 2202.03555), section 3.3; for `over_patches` data2vec 2.0
        (arXiv 2212.07525), section 3.
    """
    full = [full_precision(layer) for layer in layers]
    if over_patches:
        normed = [F.instance_norm(layer.transpose(1, 2)).transpose(1, 2) for layer in full]
    else:
        normed = [F.layer_norm(layer, layer.shape[-1:]) for layer in full]
    mean = torch.stack(normed).mean(dim=0)
    return F.layer_norm(mean, mean.shape[-1:])


def full_precision(values: Tensor) -> Tensor:
    """At least float32, for sums that bfloat16 is too coarse for."""
    return values if values.dtype == torch.float64 else values.float()


def world_size() -> int:
    """Processes that train together."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def mean_over_ranks(value: Tensor) -> Tensor:
    """The mean of a tensor over all processes, with its gradient."""
    if world_size() == 1:
        return value
    total: Tensor = _SumOverRanks.apply(value)
    return total / world_size()


class _SumOverRanks(torch.autograd.Function):
    """All-reduce whose backward pass is an all-reduce of the gradients."""

    @staticmethod
    def forward(ctx: object, value: Tensor) -> Tensor:
        total = value.clone()
        dist.all_reduce(total)
        return total

    @staticmethod
    def backward(ctx: object, *gradients: Tensor) -> Tensor:
        total = gradients[0].contiguous().clone()
        dist.all_reduce(total)
        return total
