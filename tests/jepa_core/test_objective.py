from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from core_models import padded, tiny_images, tiny_masks, tiny_state
from torch import Tensor

from jepa_core.ema import update_ema
from jepa_core.masks import MaskBatch
from jepa_core.objectives import IJepa, IJepaSettings

EXACT = {"rtol": 1e-10, "atol": 1e-12}


def objective(**changes: object) -> IJepa:
    module = tiny_state(precision="float64", **changes).objective
    assert isinstance(module, IJepa)
    return module


def gradients(module: IJepa, images: Tensor, masks: MaskBatch) -> tuple[Tensor, dict[str, Tensor]]:
    module.zero_grad()
    loss = module(images, masks)
    loss.backward()
    found = {name: value.grad.clone() for name, value in module.named_parameters() if value.grad is not None}
    return loss.detach(), found


def naive_predictions(module: IJepa, images: Tensor, masks: MaskBatch) -> Tensor:
    """Each target block from each context block, one sequence at a time, with whole blocks."""
    predictor, sequences = module.predictor, []
    for targets_BT in masks.target_indices_MBT:
        for context_BK in masks.context_indices_CBK:
            for image in range(len(images)):
                kept, wanted = context_BK[image], targets_BT[image]
                context = module.context_encoder(images[image : image + 1], kept[None])
                context = predictor.embed(context) + predictor.position_NE[kept]
                tokens = torch.cat([context, predictor.mask_token + predictor.position_NE[wanted]], dim=1)
                for block in predictor.blocks:
                    tokens = block(tokens)
                sequences.append(predictor.project(predictor.norm(tokens))[:, len(kept) :])
    return torch.cat(sequences)


@pytest.mark.parametrize("fused", [True, False])
def test_predictions_are_those_of_one_pair_and_image_at_a_time(fused: bool) -> None:
    module, images = objective(), tiny_images(dtype=torch.float64)
    for block in [*module.context_encoder.blocks, *module.predictor.blocks]:
        block.attn.fused_attn = fused
    masks = tiny_masks(contexts=2, blocks=3)
    found = module.predictions(images, masks)
    torch.testing.assert_close(found, naive_predictions(module, images, masks), **EXACT)


def test_targets_are_normalised_features_in_the_order_of_the_predictions() -> None:
    module, images, masks = objective(), tiny_images(dtype=torch.float64), tiny_masks(contexts=2, blocks=3)
    features = module.target_encoder(images)
    mean, variance = features.mean(-1, keepdim=True), features.var(-1, keepdim=True, correction=0)
    normed = (features - mean) / (variance + 1e-5).sqrt()
    expected = [
        normed[image, targets_BT[image]]
        for targets_BT in masks.target_indices_MBT
        for _ in range(2)
        for image in range(3)
    ]
    found = module.targets(images, masks)
    torch.testing.assert_close(found, torch.stack(expected), **EXACT)
    assert not found.requires_grad


@pytest.mark.parametrize(("context", "target"), [(3, 0), (0, 4), (2, 3)])
@pytest.mark.parametrize("fused", [True, False])
def test_padding_changes_neither_the_loss_nor_any_gradient(context: int, target: int, fused: bool) -> None:
    module, images, masks = objective(), tiny_images(dtype=torch.float64), tiny_masks(contexts=2, blocks=3)
    for block in [*module.context_encoder.blocks, *module.predictor.blocks]:
        block.attn.fused_attn = fused
    loss, expected = gradients(module, images, masks)
    padded_loss, found = gradients(module, images, padded(masks, context=context, target=target))
    torch.testing.assert_close(padded_loss, loss, **EXACT)
    assert found.keys() == expected.keys()
    for name, gradient in expected.items():
        torch.testing.assert_close(
            found[name], gradient, **EXACT, msg=lambda text, name=name: f"{name}: {text}"
        )


def test_ragged_blocks_give_the_mean_over_all_valid_elements() -> None:
    module, images, masks = objective(), tiny_images(dtype=torch.float64), tiny_masks(contexts=2, blocks=2)
    lengths_MB = torch.tensor([[5, 2, 4], [1, 5, 3]])
    valid = torch.arange(5) < lengths_MB[..., None]
    ragged = MaskBatch(
        masks.context_indices_CBK, masks.target_indices_MBT * valid, None, target_valid_MBT=valid
    )
    losses = []
    for block in range(2):
        for context in range(2):
            for image in range(3):
                alone = MaskBatch(
                    masks.context_indices_CBK[context : context + 1, image : image + 1],
                    masks.target_indices_MBT[
                        block : block + 1, image : image + 1, : lengths_MB[block, image]
                    ],
                )
                pixels = images[image : image + 1]
                pair = (module.predictions(pixels, alone), module.targets(pixels, alone))
                losses.append(F.smooth_l1_loss(*pair, reduction="none").flatten())
    torch.testing.assert_close(module(images, ragged), torch.cat(losses).mean(), **EXACT)


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        (IJepaSettings(loss="l2"), lambda p, t: (p - t).square().mean()),
        (IJepaSettings(), lambda p, t: F.smooth_l1_loss(p, t)),
        (
            IJepaSettings(smooth_l1_beta=0.25),
            lambda p, t: torch.where((p - t).abs() < 0.25, (p - t) ** 2 / 0.5, (p - t).abs() - 0.125).mean(),
        ),
    ],
)
@pytest.mark.parametrize("target_padding", [0, 2])
def test_each_loss_equals_its_formula(settings: IJepaSettings, expected: object, target_padding: int) -> None:
    module, images, masks = objective(objective=settings), tiny_images(dtype=torch.float64), tiny_masks()
    value = expected(module.predictions(images, masks), module.targets(images, masks))  # type: ignore[operator]
    torch.testing.assert_close(module(images, padded(masks, target=target_padding)), value, **EXACT)


@pytest.mark.parametrize("loss", ["smooth_l1", "l2"])
@pytest.mark.parametrize("target_padding", [0, 2])
def test_trivial_predictors_lose_what_loops_over_the_targets_say(loss: str, target_padding: int) -> None:
    module = objective(objective=IJepaSettings(loss=loss))  # type: ignore[arg-type]
    images, masks = tiny_images(dtype=torch.float64), tiny_masks(contexts=2)
    features = F.layer_norm(module.target_encoder(images), (32,))
    error = F.smooth_l1_loss if loss == "smooth_l1" else F.mse_loss
    constant, position = [], []
    for targets_BT in masks.target_indices_MBT:
        for image, wanted in enumerate(targets_BT):
            for place in wanted:
                constant.append(error(features.mean((0, 1)), features[image, place]))
                position.append(error(features[:, place].mean(0), features[image, place]))
    batch = padded(masks, target=target_padding)
    found = module.losses_of_trivial_predictors(images, batch)
    torch.testing.assert_close(found["constant"], torch.stack(constant).mean(), **EXACT)
    torch.testing.assert_close(found["position"], torch.stack(position).mean(), **EXACT)
    torch.testing.assert_close(found["loss"], module(images, batch).detach(), **EXACT)


def test_only_the_context_encoder_and_the_predictor_are_trained() -> None:
    module = objective()
    _, found = gradients(module, tiny_images(dtype=torch.float64), tiny_masks())
    trained = {name.split(".")[0] for name in found}
    assert trained == {"context_encoder", "predictor"}
    assert len(found) == sum(value.requires_grad for value in module.parameters())


def test_average_equals_the_loop_over_parameters() -> None:
    module = objective()
    with torch.no_grad():
        for value in module.context_encoder.parameters():
            value.add_(torch.randn_like(value))
    pairs = zip(module.target_encoder.parameters(), module.context_encoder.parameters(), strict=True)
    expected = [0.97 * target + 0.03 * source for target, source in pairs]
    update_ema(module.target_encoder, module.context_encoder, 0.97)
    for found, value in zip(module.target_encoder.parameters(), expected, strict=True):
        torch.testing.assert_close(found.detach(), value.detach(), rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize(("momentum", "followed"), [(1.0, "target_encoder"), (0.0, "context_encoder")])
def test_momentum_at_its_ends_keeps_or_copies_exactly(momentum: float, followed: str) -> None:
    module = objective()
    with torch.no_grad():
        for value in module.context_encoder.parameters():
            value.add_(1.0)
    expected = {name: value.clone() for name, value in getattr(module, followed).state_dict().items()}
    module.update_target(momentum)
    assert all(
        torch.equal(value, expected[name]) for name, value in module.target_encoder.state_dict().items()
    )
