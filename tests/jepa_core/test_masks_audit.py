"""The audit predicts what training logs, and finds settings that change nothing."""

import pytest
import torch

from jepa_core.masks import (
    MaskSettings,
    PatchGrid,
    audit_geometry,
    build_sampler,
    coupled_figures,
    equal_values,
    geometry_key,
    is_inert,
    mask_metrics,
    unused_fields,
)

GRID = PatchGrid(14, 14)
REFERENCE = MaskSettings(sampler="reference")
GEOMETRIES = [
    MaskSettings(),
    MaskSettings(context_keep="all", context_scale=(0.4, 1.0)),
    MaskSettings(target_scale=(0.2, 0.3), num_context_blocks=2),
    MaskSettings(allow_overlap=True),
    REFERENCE,
    MaskSettings(sampler="random", target_scale=(0.1, 0.3), num_target_blocks=2),
    MaskSettings(sampler="rasterized", num_target_blocks=3),
]


@pytest.mark.parametrize("mask_settings", GEOMETRIES)
def test_training_logs_what_the_audit_predicts(mask_settings):
    predicted = audit_geometry(mask_settings, GRID).metrics
    sampler, logged = build_sampler(mask_settings, GRID), {}
    for step in range(120):
        ids_B = torch.arange(step * 128, (step + 1) * 128)
        masks = sampler.sample(ids_B, ids_B * 0, seed=11, step=step)
        for name, value in mask_metrics(masks, GRID).items():
            logged[name] = logged.get(name, 0) + float(value) / 120
    assert logged.keys() == predicted.keys()
    for name, value in predicted.items():
        scale = 196 if name.endswith("_patches") else 1
        assert logged[name] == pytest.approx(value, abs=0.01 * scale), name


def test_metrics_agree_with_a_count_by_hand():
    sampler = build_sampler(MaskSettings(context_keep="all"), PatchGrid(6, 6))
    masks = sampler.sample(torch.arange(3), torch.zeros(3, dtype=torch.int64), seed=0, step=0)
    metrics = mask_metrics(masks, PatchGrid(6, 6))
    contexts = [
        set(masks.context_indices_CBK[0, b][masks.context_valid_CBK[0, b]].tolist()) for b in range(3)
    ]
    blocks = [
        [set(masks.target_indices_MBT[m, b][masks.target_valid_MBT[m, b]].tolist()) for m in range(4)]
        for b in range(3)
    ]
    union = sum(len(set().union(*image)) for image in blocks) / 3
    sizes = sum(len(block) for image in blocks for block in image) / 12
    assert float(metrics["masks/context_patches"]) == pytest.approx(sum(map(len, contexts)) / 3)
    assert float(metrics["masks/target_patches"]) == pytest.approx(sizes)
    assert float(metrics["masks/target_union_fraction"]) == pytest.approx(union / 36)
    assert float(metrics["masks/target_overlap_fraction"]) == pytest.approx(1 - union / (4 * sizes))


def test_context_scale_is_inert_under_reference_alone():
    values = [(0.85, 1.0), (0.9, 1.0), (0.95, 1.0)]
    assert is_inert(REFERENCE, GRID, "context_scale", values)
    assert not is_inert(MaskSettings(), GRID, "context_scale", values)
    assert equal_values(REFERENCE, GRID, "context_scale", [(0.75, 1.0), *values]) == ((0,), (1, 2, 3))


def test_values_that_cannot_be_sampled_stand_alone():
    values = [(0.15, 0.2), (0.001, 0.002), (0.001, 0.003)]
    assert equal_values(MaskSettings(), GRID, "target_scale", values) == ((0,), (1,), (2,))
    with pytest.raises(ValueError, match="target_size is not a mask setting"):
        equal_values(MaskSettings(), GRID, "target_size", values)


CHANGES = {
    "target_scale": (0.1, 0.2),
    "target_aspect_ratio": (0.5, 1.5),
    "context_scale": (0.5, 0.6),
    "context_aspect_ratio": (0.5, 0.6),
    "context_keep": 0.2,
    "allow_overlap": True,
}


@pytest.mark.parametrize("sampler", ["exact", "reference", "random", "block", "rasterized"])
def test_a_field_counts_as_unused_exactly_if_it_changes_no_block(sampler):
    base = MaskSettings(sampler=sampler, num_target_blocks=3)
    unused = {
        field
        for field, value in CHANGES.items()
        if is_inert(base, GRID, field, [getattr(base, field), value])
    }
    assert unused == unused_fields(base)


def test_a_fraction_and_its_count_are_one_geometry():
    assert geometry_key(MaskSettings(context_keep=0.25), GRID) == geometry_key(
        MaskSettings(context_keep=49), GRID
    )
    assert geometry_key(MaskSettings(), GRID) != geometry_key(MaskSettings(), PatchGrid(16, 16))
    assert geometry_key(MaskSettings(), GRID) != geometry_key(MaskSettings(num_target_blocks=3), GRID)


def test_the_minimum_counts_where_it_can_bind():
    loose, strict = MaskSettings(), MaskSettings(min_context_patches=8)
    assert geometry_key(loose, GRID) != geometry_key(strict, GRID)
    loose = MaskSettings(allow_overlap=True)
    strict = MaskSettings(allow_overlap=True, min_context_patches=8)
    assert geometry_key(loose, GRID) == geometry_key(strict, GRID)


def test_coupled_figures_are_named_with_their_correlation():
    figures = {
        "masks.target_scale": [0.1, 0.2, 0.3],
        "masks/context_fraction": [0.5, 0.4, 0.3],
        "x": [1, 3, 1],
    }
    (pair,) = coupled_figures(figures)
    assert pair == ("masks.target_scale", "masks/context_fraction", pytest.approx(-1))


def test_warnings_say_what_a_geometry_lacks():
    short = audit_geometry(MaskSettings(context_scale=(0.3, 0.4)), GRID)
    assert any("hold fewer than 49 patches" in warning for warning in short.warnings)
    assert audit_geometry(MaskSettings(), GRID).warnings == ()
    assert any("correlation +0.59" in warning for warning in audit_geometry(REFERENCE, GRID).warnings)


def test_a_count_under_one_is_refused():
    with pytest.raises(ValueError, match="num_samples and batch_size must be at least 1"):
        audit_geometry(MaskSettings(), GRID, num_samples=0)
