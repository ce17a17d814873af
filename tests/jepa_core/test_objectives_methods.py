"""Every method's loss against a naive one: an image at a time, from the formulas of its paper."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from core_models import NUM_PATCHES, method_masks, tiny_images, tiny_state
from torch import Tensor

from jepa_core.encoder import Encoder, patchify
from jepa_core.objectives import (
    Cae,
    CaeSettings,
    Data2Vec,
    Data2Vec2,
    Data2Vec2Settings,
    Data2VecSettings,
    Dino,
    DinoSettings,
    Mae,
    MaeSettings,
    Objective,
    VicReg,
    VicRegSettings,
)

EXACT = {"rtol": 1e-9, "atol": 1e-11}
IMAGES = tiny_images(dtype=torch.float64)


def built(settings: object) -> Objective:
    """A method whose teacher, where it has one, has moved away from its student."""
    module = tiny_state(objective=settings, precision="float64").objective
    if module.target_encoder is not module.context_encoder:
        generator = torch.Generator().manual_seed(1)
        with torch.no_grad():
            for value in module.target_encoder.parameters():
                value.add_(0.1 * torch.randn(value.shape, generator=generator, dtype=value.dtype))
    return module


def normed(tokens: Tensor) -> Tensor:
    variance = tokens.var(-1, keepdim=True, correction=0)
    return (tokens - tokens.mean(-1, keepdim=True)) / (variance + 1e-5).sqrt()


def pixels_of(image_CHW: Tensor, patch: int, encoder: Encoder, *, normalize: bool = True) -> np.ndarray:
    row, column = divmod(patch, encoder.grid.columns)
    values = image_CHW[:, 4 * row : 4 * row + 4, 4 * column : 4 * column + 4].flatten().numpy()
    return (values - values.mean()) / np.sqrt(values.var(ddof=1) + 1e-6) if normalize else values


def encoded(encoder: Encoder, image_CHW: Tensor, patches: list[int]) -> Tensor:
    """Features of some patches, embedded by the convolution itself."""
    planes = F.conv2d(
        image_CHW[None], encoder.patch_embed.proj.weight, encoder.patch_embed.proj.bias, stride=4
    )
    tokens = planes[0].flatten(1).T[patches] + encoder.position_ND[patches]
    for block in encoder.blocks:
        tokens = block(tokens[None])[0]
    return encoder.norm(tokens)


@pytest.mark.parametrize("normalize", [True, False])
def test_mae_rebuilds_the_hidden_pixels(normalize: bool) -> None:
    settings = MaeSettings(
        decoder_width=16,
        decoder_depth=2,
        decoder_num_heads=2,
        normalize_pixels=normalize,
        horizontal_flip=False,
    )
    module = built(settings)
    assert isinstance(module, Mae)
    masks, losses = method_masks(module), []
    for image in range(3):
        visible = masks.context_indices_CBK[0, image].tolist()
        hidden = [patch for patch in range(NUM_PATCHES) if patch not in visible]
        decoder, features = module.decoder, encoded(module.context_encoder, IMAGES[image], visible)
        tokens = decoder.mask_token[0].expand(NUM_PATCHES, -1).clone()
        tokens[visible] = decoder.embed(features)
        tokens = tokens + decoder.position_NE
        for block in decoder.blocks:
            tokens = block(tokens[None])[0]
        predicted = decoder.project(decoder.norm(tokens))
        for patch in hidden:
            target = pixels_of(IMAGES[image], patch, module.context_encoder, normalize=normalize)
            losses.append(((predicted[patch] - torch.from_numpy(target)) ** 2).mean())
    assert len(losses) == 3 * 27
    torch.testing.assert_close(module(IMAGES, masks), torch.stack(losses).mean(), **EXACT)


def layers_of(encoder: Encoder, image_CHW: Tensor) -> list[Tensor]:
    tokens = encoder._embed(patchify(image_CHW[None], encoder.grid)) + encoder.position_ND
    found = []
    for block in encoder.blocks:
        tokens = block(tokens)
        found.append(tokens[0])
    return found


@pytest.mark.parametrize(("averaged", "used"), [(1, 1), (2, 2), (6, 2)])
def test_data2vec_predicts_the_mean_of_the_teachers_top_layers(averaged: int, used: int) -> None:
    settings = Data2VecSettings(averaged_layers=averaged, smooth_l1_beta=0.5, horizontal_flip=False)
    module = built(settings)
    assert isinstance(module, Data2Vec)
    masks, losses = method_masks(module), []
    encoder = module.context_encoder
    for image in range(3):
        layers = layers_of(module.target_encoder, IMAGES[image])[-used:]
        target = normed(sum(normed(layer) for layer in layers) / used)
        hidden = masks.target_indices_MBT[0, image].tolist()
        tokens = encoder._embed(patchify(IMAGES[image : image + 1], encoder.grid))[0].clone()
        tokens[hidden] = module.mask_token[0]
        tokens = (tokens + encoder.position_ND)[None]
        for block in encoder.blocks:
            tokens = block(tokens)
        predicted = module.head(encoder.norm(tokens))[0]
        error = (predicted - target)[hidden].abs()
        losses.append(torch.where(error < 0.5, error**2, error - 0.25).flatten())
    torch.testing.assert_close(module(IMAGES, masks), torch.cat(losses).mean(), **EXACT)


def test_data2vec2_predicts_one_teacher_pass_from_several_masked_views() -> None:
    settings = Data2Vec2Settings(
        masked_views=3, decoder_groups=4, decoder_depth=2, averaged_layers=2, horizontal_flip=False
    )
    module = built(settings)
    assert isinstance(module, Data2Vec2)
    masks, losses = method_masks(module), []
    decoder = module.decoder
    for view in range(3):
        for image in range(3):
            normed_layers = []
            for layer in layers_of(module.target_encoder, IMAGES[image]):
                variance = layer.var(0, keepdim=True, correction=0)
                normed_layers.append((layer - layer.mean(0, keepdim=True)) / (variance + 1e-5).sqrt())
            target = normed(sum(normed_layers) / 2)
            visible = masks.context_indices_CBK[view, image].tolist()
            hidden = masks.target_indices_MBT[view, image].tolist()
            tokens = decoder.mask_token[0].expand(NUM_PATCHES, -1).clone()
            tokens[visible] = decoder.embed(encoded(module.context_encoder, IMAGES[image], visible))
            for convolution in decoder.convolutions:
                plane = convolution(tokens.T.reshape(1, -1, 6, 6))
                tokens = tokens + F.gelu(normed(plane[0].flatten(1).T))
            losses.append(((decoder.project(tokens) - target)[hidden] ** 2).flatten())
    torch.testing.assert_close(module(IMAGES, masks), torch.cat(losses).mean(), **EXACT)


def test_cae_aligns_regressed_features_and_decodes_them() -> None:
    settings = CaeSettings(
        regressor_depth=2,
        decoder_depth=1,
        alignment_weight=3.0,
        reconstruction_weight=0.5,
        horizontal_flip=False,
    )
    module = built(settings)
    assert isinstance(module, Cae)
    masks = method_masks(module)
    encoder, alignment, reconstruction = module.context_encoder, [], []
    for image in range(3):
        visible = masks.context_indices_CBK[0, image].tolist()
        hidden = masks.target_indices_MBT[0, image].tolist()
        context = encoded(encoder, IMAGES[image], visible) + encoder.position_ND[visible]
        tokens = module.regressor.mask_token[0] + encoder.position_ND[hidden]
        for block in module.regressor.blocks:
            query_in = block.norm_query(tokens)
            both = torch.cat([block.norm_context(context), query_in])
            key, value = block.key_value(both).chunk(2, dim=-1)
            mixed = []
            for head in range(2):
                part = slice(16 * head, 16 * head + 16)
                scores = block.query(query_in)[:, part] @ key[:, part].T / math.sqrt(16)
                mixed.append(scores.softmax(-1) @ value[:, part])
            tokens = tokens + block.project(torch.cat(mixed, dim=-1))
            tokens = tokens + block.contract(F.gelu(block.expand(block.norm_mlp(tokens))))
        features = module.regressor.norm(tokens)
        alignment.append((features - encoded(encoder, IMAGES[image], hidden)) ** 2)
        decoded = (features + encoder.position_ND[hidden])[None]
        for block in module.decoder.blocks:
            decoded = block(decoded)
        found = module.decoder.project(module.decoder.norm(decoded))[0]
        wanted = np.stack([pixels_of(IMAGES[image], patch, encoder) for patch in hidden])
        reconstruction.append((found - torch.from_numpy(wanted)) ** 2)
    expected = 0.5 * torch.stack(reconstruction).mean() + 3 * torch.stack(alignment).mean()
    torch.testing.assert_close(module(IMAGES, masks), expected, **EXACT)


def test_cae_does_not_train_what_it_aligns_to() -> None:
    module = built(CaeSettings(regressor_depth=1, decoder_depth=1))
    assert isinstance(module, Cae)
    assert not module.aligned(IMAGES, method_masks(module).target_indices_MBT[0]).requires_grad


def test_vicreg_is_the_sum_of_its_three_terms() -> None:
    module = built(
        VicRegSettings(projector_width=8, invariance_weight=3, variance_weight=5, covariance_weight=7)
    )
    assert isinstance(module, VicReg)
    masks = method_masks(module)
    embeddings = []
    for view in module.views(IMAGES, masks.keys_B):
        embeddings.append(module.projector(module.context_encoder(view).mean(1)).detach().numpy())
    hinge = covariance = 0.0
    for values in embeddings:
        table = np.cov(values.T, ddof=1)
        for i in range(8):
            hinge += max(0.0, 1 - math.sqrt(table[i, i] + 1e-4)) / 8 / 2
            covariance += sum(table[i, j] ** 2 for j in range(8) if j != i) / 8
    expected = 3 * ((embeddings[0] - embeddings[1]) ** 2).mean() + 5 * hinge + 7 * covariance
    assert module(IMAGES, masks).item() == pytest.approx(expected, rel=1e-9)


def dino(**changes: object) -> Dino:
    module = built(DinoSettings(num_local_crops=2, num_prototypes=5, head_width=16, **changes))  # type: ignore[arg-type]
    assert isinstance(module, Dino)
    return module


@pytest.mark.parametrize("center", [True, False])
def test_dino_is_the_cross_entropy_over_pairs_of_different_crops(center: bool) -> None:
    module = dino(center_targets=center)
    masks = method_masks(module)
    module(IMAGES, masks)
    module.update_target(1.0)  # moves the centre away from 0
    large, small = module.crops(IMAGES, masks.keys_B)
    assert [crop.shape[-1] for crop in (*large, *small)] == [24, 24, 12, 12]
    total, pairs = 0.0, 0
    for image in range(3):
        for teacher_view in range(2):
            features = module.target_encoder(large[teacher_view][image : image + 1]).mean(1)
            shifted = module.target_head(features)[0] - (module.center_K if center else 0)
            target = (shifted / 0.04).softmax(-1)
            for student_view in range(4):
                if student_view == teacher_view:
                    continue
                if student_view < 2:
                    seen = module.context_encoder(large[student_view][image : image + 1]).mean(1)
                else:
                    seen = module._local_features(small[student_view - 2][image : image + 1])
                total += -(target * (module.head(seen)[0] / 0.1).log_softmax(-1)).sum().item()
                pairs += 1
    assert pairs == 3 * 6
    assert module(IMAGES, masks).item() == pytest.approx(total / pairs, rel=1e-9)


def test_the_dino_head_gives_cosines_with_its_prototypes() -> None:
    module = dino()
    features = torch.randn(3, 32, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    hidden = module.head.layers(features)
    expected = torch.stack([F.cosine_similarity(hidden, row[None]) for row in module.head.prototypes], dim=1)
    torch.testing.assert_close(module.head(features), expected)


def test_the_centre_follows_the_teachers_mean_output_and_is_saved() -> None:
    module = dino(center_momentum=0.75)
    masks = method_masks(module)
    crops = torch.cat(module.crops(IMAGES, masks.keys_B)[0])
    mean = module.target_head(module.target_encoder(crops).mean(1)).mean(0).detach()
    module(IMAGES, masks)
    assert torch.equal(module.center_K, torch.zeros_like(module.center_K))
    module.update_target(1.0)
    torch.testing.assert_close(module.center_K, 0.25 * mean, **EXACT)
    assert torch.equal(module.state_dict()["center_K"], module.center_K)


def test_positions_of_small_crops_span_the_grid_of_large_ones() -> None:
    module = dino()
    position = module.local_position_ND.view(3, 3, -1)
    whole = module.context_encoder.position_ND.view(6, 6, -1)
    torch.testing.assert_close(position[0, 0], whole[:2, :2].mean((0, 1)), rtol=0, atol=0.15)
    torch.testing.assert_close(position[2, 2], whole[4:, 4:].mean((0, 1)), rtol=0, atol=0.15)
