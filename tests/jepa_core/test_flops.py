from __future__ import annotations

import pytest
import torch
from core_models import tiny_images, tiny_state
from torch.utils.flop_counter import FlopCounterMode

from jepa_core.flops import ModelDims, flops_per_image


def published(width: int, depth: int, predictor_depth: int, patch: int = 16) -> ModelDims:
    return ModelDims(
        num_patches=(224 // patch) ** 2,
        patch_values=3 * patch**2,
        width=width,
        depth=depth,
        predictor_width=384,
        predictor_depth=predictor_depth,
    )


@pytest.mark.parametrize(
    ("dims", "context", "target", "gigaflops"),
    [
        (published(384, 12, 6), 51, 33, 38.37),
        (published(768, 12, 6), 51, 33, 84.19),
        (published(1024, 24, 12), 51, 33, 261.0),
        (published(1280, 32, 12, patch=14), 70, 44, 662.2),
    ],
)
def test_published_models_cost_what_the_published_tables_say(
    dims: ModelDims, context: int, target: int, gigaflops: float
) -> None:
    found = flops_per_image(dims, context_patches=context, target_patches=target).total / 1e9
    assert found == pytest.approx(gigaflops, rel=5e-4)


@pytest.mark.parametrize("contexts", [1, 2])
def test_the_count_is_pytorchs_own_count_of_the_parts(contexts: int) -> None:
    """Whole blocks, without the short cuts that leave the result unchanged; per image of three."""
    module = tiny_state().objective
    for block in [*module.target_encoder.blocks, *module.predictor.blocks]:
        block.attn.fused_attn = False
    dims = ModelDims.of(module.context_encoder, module.predictor)
    found = flops_per_image(
        dims, context_patches=7, target_patches=5, num_target_blocks=3, num_context_blocks=contexts
    )
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        module.target_encoder(tiny_images())
    assert counter.get_total_flops() / 3 == found.target_encoder
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        module.predictor.embed(torch.zeros(contexts * 3, 7, 32))
        tokens = torch.zeros(3 * contexts * 3, 12, 16)
        for block in module.predictor.blocks:
            tokens = block(tokens)
        module.predictor.project(tokens[:, 7:])
    assert 3 * counter.get_total_flops() / 3 == found.predictor
