"""Dimensions of timm's models are known without timm, and are timm's."""

from __future__ import annotations

import subprocess
import sys

import pytest
import timm

from jepa_core.encoder import EncoderSettings, build_encoder, check_encoder_name
from jepa_core.vit_defaults import read_timm, vit_defaults
from jepa_core.vit_table import VIT_TABLE

FAMILIES = [
    "vit_huge_patch14_224",
    "vit_small_patch16_224",
    "vit_base_patch8_224",
    "vit_large_patch14_dinov2",
    "vit_base_patch16_384",
    "vit_base_patch32_plus_256",
    "vit_small_patch16_18x2_224",
    "flexivit_small",
    "vit_so400m_patch14_siglip_378",
]


def test_the_table_has_the_names_that_timm_has() -> None:
    assert sorted(VIT_TABLE) == sorted(timm.list_models(module="vision_transformer"))


def test_the_table_says_what_timm_says() -> None:
    assert read_timm(FAMILIES) == {name: VIT_TABLE[name] for name in FAMILIES}


@pytest.mark.slow
def test_the_whole_table_says_what_timm_says() -> None:
    assert read_timm() == VIT_TABLE


@pytest.mark.parametrize(
    ("name", "image_size_px", "sides"),
    [
        ("vit_huge_patch14_224", 448, 32),
        ("vit_huge_patch14_224.orig_in21k", 224, 16),
        ("vit_small_patch16_224", 224, 14),
        ("vit_base_patch8_224", 224, 28),
        ("vit_base_patch32_224", 224, 7),
    ],
)
def test_the_patch_size_follows_the_name(name: str, image_size_px: int, sides: int) -> None:
    grid = EncoderSettings(name=name, image_size_px=image_size_px).grid
    assert (grid.rows, grid.columns) == (sides, sides)


def test_a_patch_size_that_is_given_stays() -> None:
    settings = EncoderSettings(name="vit_huge_patch14_224", image_size_px=32, patch_size_px=16)
    assert settings.grid.num_patches == 4


def test_a_model_is_built_with_the_patches_of_its_name() -> None:
    settings = EncoderSettings(
        name="vit_small_patch14_dinov2", image_size_px=28, width=16, depth=1, num_heads=2
    )
    assert build_encoder(settings).patch_embed.proj.kernel_size == (14, 14)


def test_an_image_size_must_fit_the_patches_of_the_name() -> None:
    with pytest.raises(ValueError, match=r"multiple of patch_size_px \(14\); try 224"):
        EncoderSettings(name="vit_huge_patch14_224", image_size_px=225)


def test_an_unknown_name_has_no_patch_size() -> None:
    with pytest.raises(ValueError, match="patch_size_px must be given for 'vit_of_tomorrow'"):
        _ = EncoderSettings(name="vit_of_tomorrow").patch_px


def test_blocks_that_are_not_plain_are_refused_by_name() -> None:
    with pytest.raises(ValueError, match="parallel blocks"):
        check_encoder_name("vit_small_patch16_18x2_224")


def test_the_table_needs_neither_torch_nor_timm() -> None:
    code = (
        "import sys; from jepa_core.vit_defaults import vit_defaults; "
        "assert vit_defaults('vit_huge_patch14_224').patch_size_px == 14; "
        "assert not {'torch', 'timm'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_a_name_that_timm_lacks_has_no_defaults() -> None:
    assert vit_defaults("resnet18") is None
