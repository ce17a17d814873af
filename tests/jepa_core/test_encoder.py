from __future__ import annotations

import pytest
import timm
import torch
from core_models import ENCODER, NUM_PATCHES, tiny_images

from jepa_core.encoder import Encoder, EncoderSettings, build_encoder, check_encoder_name, patchify
from jepa_core.positions import sincos_positions


def double_encoder(settings: EncoderSettings = ENCODER) -> Encoder:
    return build_encoder(settings).double()


def test_all_indices_in_order_give_the_features_of_the_whole_image() -> None:
    encoder, images = double_encoder(), tiny_images(dtype=torch.float64)
    everything = torch.arange(NUM_PATCHES).expand(3, -1)
    torch.testing.assert_close(encoder(images, everything), encoder(images), rtol=1e-12, atol=1e-12)


def test_the_order_of_the_patches_only_reorders_the_features() -> None:
    encoder, images = double_encoder(), tiny_images(dtype=torch.float64)
    order = torch.randperm(NUM_PATCHES, generator=torch.Generator().manual_seed(3)).expand(3, -1)
    torch.testing.assert_close(encoder(images, order), encoder(images)[:, order[0]], rtol=1e-12, atol=1e-12)


def test_more_rows_of_indices_than_images_take_the_images_in_turn() -> None:
    encoder, images = double_encoder(), tiny_images(dtype=torch.float64)
    rows = torch.rand(6, NUM_PATCHES, generator=torch.Generator().manual_seed(1)).argsort(dim=1)[:, :5]
    both = encoder(images, rows)
    torch.testing.assert_close(both[:3], encoder(images, rows[:3]), rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(both[3:], encoder(images, rows[3:]), rtol=1e-12, atol=1e-12)


def test_padding_does_not_change_the_valid_features() -> None:
    encoder, images = double_encoder(), tiny_images(dtype=torch.float64)
    indices = torch.tensor([[3, 9, 20, 35], [1, 2, 0, 0], [7, 8, 30, 0]])
    lengths = torch.tensor([4, 2, 3])
    features = encoder(images, indices, torch.arange(4) < lengths[:, None])
    for row, length in enumerate(lengths.tolist()):
        alone = encoder(images[row : row + 1], indices[row : row + 1, :length])
        torch.testing.assert_close(features[row : row + 1, :length], alone, rtol=1e-12, atol=1e-12)


def test_features_are_those_of_the_timm_model_with_the_same_weights() -> None:
    encoder, images = double_encoder(), tiny_images(dtype=torch.float64)
    model = timm.create_model(
        ENCODER.name,
        img_size=24,
        patch_size=4,
        embed_dim=32,
        depth=2,
        num_heads=2,
        class_token=False,
        global_pool="",
        num_classes=0,
    ).double()
    weights = dict(encoder.state_dict()) | {"pos_embed": encoder.position_ND[None]}
    model.load_state_dict(weights, strict=True)
    torch.testing.assert_close(encoder(images), model(images), rtol=1e-12, atol=1e-12)


def test_patches_are_row_major_and_laid_out_as_a_convolution_sees_them() -> None:
    encoder, images = double_encoder(), tiny_images(dtype=torch.float64)
    patches = patchify(images, encoder.grid)
    expected = torch.nn.functional.unfold(images, kernel_size=4, stride=4).transpose(1, 2)
    assert torch.equal(patches, expected)


@pytest.mark.parametrize(
    "name", ["vit_small_patch14_reg4_dinov2", "vit_base_patch16_clip_224", "vit_base_patch16_siglip_224"]
)
def test_other_timm_models_run_on_a_subset_of_patches(name: str) -> None:
    settings = EncoderSettings(name=name, image_size_px=16, patch_size_px=4, width=16, depth=1, num_heads=2)
    features = build_encoder(settings)(torch.randn(2, 3, 16, 16), torch.tensor([[0, 5, 15], [1, 2, 3]]))
    assert features.shape == (2, 3, 16)
    assert features.isfinite().all()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"name": "vit_smal_patch16_224"}, "nearest: vit_small_patch16_224"),
        ({"name": "VIT_Small_Patch16_224"}, "nearest: vit_small_patch16_224"),
        ({"name": "resnet18"}, "'resnet18' is not a timm Vision Transformer"),
        ({"name": "eva02_tiny_patch14_224"}, "is not a timm Vision Transformer"),
        ({"name": "vit_small_patch16_18x2_224", "num_heads": 2}, "parallel blocks"),
        ({"num_heads": None}, "divisible by num_heads"),
    ],
)
def test_a_model_that_cannot_be_built_is_refused_with_the_reason(
    changes: dict[str, object], message: str
) -> None:
    settings = {"name": "vit_tiny_patch16_224", "image_size_px": 224, "patch_size_px": 16, "depth": 1}
    with pytest.raises(ValueError, match=message):
        build_encoder(EncoderSettings(**(settings | {"width": 32} | changes)))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"image_size_px": 225}, "multiple of patch_size_px"),
        ({"image_size_px": (224, 100)}, r"multiple of patch_size_px \(16\); try \[224, 96\]"),
        ({"image_size_px": (224, 224, 3)}, r"a number or \[height, width\]"),
        ({"image_size_px": (224, 0)}, "at least 1"),
        ({"width": 30}, "multiple of 4"),
        ({"width": 32, "num_heads": 5}, "multiple of num_heads"),
        ({"depth": 0}, "at least 1"),
    ],
)
def test_dimensions_that_do_not_fit_are_refused_before_anything_is_built(
    changes: dict[str, object], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        EncoderSettings(**changes)  # type: ignore[arg-type]


def test_position_embedding_equals_the_formula_element_by_element() -> None:
    found = sincos_positions(3, 5, 8)
    for row in range(3):
        for column in range(5):
            expected = []
            for place in (column, row):
                angles = [place / 10_000 ** (index / 2) for index in range(2)]
                expected += [torch.tensor(angle).sin() for angle in angles]
                expected += [torch.tensor(angle).cos() for angle in angles]
            torch.testing.assert_close(found[row * 5 + column], torch.stack(expected))


@pytest.mark.parametrize(
    "name",
    [
        "vit_tiny_patch16_224",
        "vit_small_patch16_224",
        "vit_small_patch32_224",
        "vit_base_patch8_224",
        "vit_base_patch16_224",
        "vit_base_patch32_224",
        "vit_large_patch16_224",
    ],
)
def test_a_name_that_is_passed_without_asking_timm_is_one_of_timm(name: str) -> None:
    check_encoder_name(name)
    assert name in timm.list_models(module="vision_transformer")


def test_a_rectangular_encoder_has_its_own_grid_and_one_way_of_writing_its_size() -> None:
    size = {"name": "vit_tiny_patch16_224", "patch_size_px": 4, "width": 16, "depth": 1, "num_heads": 2}
    wide = EncoderSettings(**size, image_size_px=[8, 20])  # type: ignore[arg-type]
    assert (wide.grid.rows, wide.grid.columns, wide.image_size_px) == (2, 5, (8, 20))
    assert build_encoder(wide)(torch.zeros(1, 3, 8, 20)).shape == (1, 10, 16)
    assert EncoderSettings(**size, image_size_px=(8, 8)) == EncoderSettings(**size, image_size_px=8)  # type: ignore[arg-type]
