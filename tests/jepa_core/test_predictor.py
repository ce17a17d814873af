from __future__ import annotations

import pytest
import torch
from core_models import padded, tiny_images, tiny_masks, tiny_state
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from jepa_core.flops import ModelDims, flops_per_image
from jepa_core.masks import MaskBatch
from jepa_core.objectives import IJepa
from jepa_core.predictor import PredictorSettings

EXACT = {"rtol": 1e-10, "atol": 1e-12}


def objective(context: str, *, depth: int = 2, fused: bool = True) -> IJepa:
    settings = PredictorSettings(width=16, depth=depth, num_heads=2, context=context)  # type: ignore[arg-type]
    module = tiny_state(precision="float64", predictor=settings).objective
    assert isinstance(module, IJepa)
    for block in module.predictor.blocks:
        block.attn.fused_attn = fused
    return module


def naive_shared(module: IJepa, images: Tensor, masks: MaskBatch) -> Tensor:
    """One context and one target block at a time, with a written-out mask of who attends to whom."""
    predictor, sequences = module.predictor, []
    for targets_BT in masks.target_indices_MBT:
        for context_BK in masks.context_indices_CBK:
            for image in range(len(images)):
                kept, wanted = context_BK[image], targets_BT[image]
                context = module.context_encoder(images[image : image + 1], kept[None])
                context = predictor.embed(context) + predictor.position_NE[kept]
                tokens = torch.cat([context, predictor.mask_token + predictor.position_NE[wanted]], dim=1)
                may_read = torch.ones(len(kept) + len(wanted), len(kept) + len(wanted), dtype=torch.bool)
                may_read[: len(kept), len(kept) :] = False
                for block in predictor.blocks:
                    tokens = block(tokens, attn_mask=may_read[None, None])
                sequences.append(predictor.project(predictor.norm(tokens))[:, len(kept) :])
    return torch.cat(sequences)


@pytest.mark.parametrize("depth", [1, 3])
@pytest.mark.parametrize("fused", [True, False])
def test_a_shared_context_attends_to_itself_and_each_target_block_to_it(depth: int, fused: bool) -> None:
    module, images = objective("shared", depth=depth, fused=fused), tiny_images(dtype=torch.float64)
    masks = tiny_masks(contexts=2, blocks=3)
    torch.testing.assert_close(
        module.predictions(images, masks), naive_shared(module, images, masks), **EXACT
    )


def test_with_one_block_a_shared_context_is_the_published_predictor() -> None:
    images, masks = tiny_images(dtype=torch.float64), tiny_masks(contexts=2, blocks=3)
    expected = objective("repeated", depth=1).predictions(images, masks)
    torch.testing.assert_close(objective("shared", depth=1).predictions(images, masks), expected, **EXACT)


def test_with_more_blocks_it_is_another_predictor() -> None:
    images, masks = tiny_images(dtype=torch.float64), tiny_masks()
    both = [objective(context).predictions(images, masks) for context in ("repeated", "shared")]
    assert (both[0] - both[1]).abs().max() > 1e-6


@pytest.mark.parametrize(("context", "target"), [(3, 0), (0, 4), (2, 3)])
@pytest.mark.parametrize("fused", [True, False])
def test_padding_changes_neither_loss_nor_gradient_of_a_shared_context(
    context: int, target: int, fused: bool
) -> None:
    module, images = objective("shared", fused=fused), tiny_images(dtype=torch.float64)
    masks, found = tiny_masks(contexts=2, blocks=3), []
    for batch in (masks, padded(masks, context=context, target=target)):
        module.zero_grad()
        module(images, batch).backward()
        found.append([value.grad.clone() for value in module.parameters() if value.grad is not None])
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(other, one, **EXACT)


def test_no_target_block_sees_another() -> None:
    module, images, masks = objective("shared"), tiny_images(dtype=torch.float64), tiny_masks(blocks=2)
    other = MaskBatch(masks.context_indices_CBK, masks.target_indices_MBT.clone())
    other.target_indices_MBT[1] = (other.target_indices_MBT[1] + 1) % 36
    first = [module.predictions(images, batch)[:3] for batch in (masks, other)]
    torch.testing.assert_close(first[1], first[0], **EXACT)


@pytest.mark.parametrize("contexts", [1, 2])
def test_the_count_of_a_shared_context_is_pytorchs_own(contexts: int) -> None:
    module = objective("shared", depth=2, fused=False)
    dims = ModelDims.of(module.context_encoder, module.predictor)
    found = flops_per_image(
        dims, context_patches=7, target_patches=5, num_target_blocks=3, num_context_blocks=contexts
    )
    predictor = module.predictor
    predictor.shared_tail = lambda *arguments: predictor.shared(*arguments)[:, 7:]
    features = torch.zeros(contexts * 3, 7, 32, dtype=torch.float64)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        predictor(features, tiny_masks(contexts=contexts, blocks=3))
    assert 3 * counter.get_total_flops() / 3 == found.predictor


def test_sharing_the_context_halves_the_predictor_of_a_small_model() -> None:
    costs = [
        flops_per_image(
            ModelDims(
                num_patches=196,
                patch_values=768,
                width=384,
                depth=12,
                predictor_width=384,
                predictor_depth=6,
                shared_context=shared,
            ),
            context_patches=51,
            target_patches=33,
        ).predictor
        for shared in (False, True)
    ]
    assert costs[1] / costs[0] == pytest.approx(0.54, abs=0.01)
