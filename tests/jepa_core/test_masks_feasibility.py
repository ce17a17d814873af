"""Geometries that cannot be sampled are refused with the field, the reason and the nearest that can."""

import re

import pytest
from examples import examples
from hypothesis import given
from hypothesis import strategies as st

from jepa_core.masks import MaskSettings, PatchGrid, build_sampler

GRID = PatchGrid(14, 14)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"sampler": "multi"}, "sampler must be one of exact, reference"),
        ({"target_scale": (0.2, 0.1)}, r"target_scale must be .* not \[0.2, 0.1\]; try \[0.1, 0.2\]"),
        ({"target_scale": (0.0, 0.1)}, "target_scale must be above 0"),
        ({"context_scale": (0.5, 1.5)}, "context_scale must be at most 1, the whole grid"),
        ({"context_scale": (float("nan"), 1.0)}, "context_scale must be two finite numbers"),
        ({"target_aspect_ratio": (-1.0, 1.0)}, "target_aspect_ratio must be above 0"),
        ({"context_aspect_ratio": (1.0, float("inf"))}, "context_aspect_ratio must be two finite"),
        ({"num_target_blocks": 0}, "num_target_blocks must be a whole number of at least 1, not 0"),
        ({"min_context_patches": True}, "min_context_patches must be a whole number"),
        ({"context_keep": 0}, "context_keep as a count must be at least 1"),
        ({"context_keep": 1.5}, "context_keep as a fraction of the grid must be above 0 and at most 1"),
        ({"context_keep": "some"}, "context_keep must be a count, a fraction of the grid or 'all'"),
    ],
)
def test_values_that_break_a_rule_on_any_grid_are_named(changes, message):
    with pytest.raises(ValueError, match=message):
        MaskSettings(**changes)


INFEASIBLE = [
    ({"target_scale": (0.01, 0.02)}, "target_scale", "min_target_patches"),
    ({"target_scale": (0.01, 0.02), "sampler": "reference"}, "target_scale", "min_target_patches"),
    ({"target_scale": (0.01, 0.02), "sampler": "random"}, "target_scale", "min_target_patches"),
    ({"target_scale": (0.95, 1.0)}, "target_scale", "min_context_patches"),
    ({"context_scale": (0.01, 0.02)}, "context_scale", "min_context_patches"),
    ({"context_scale": (0.01, 0.02), "sampler": "reference"}, "context_scale", "min_context_patches"),
    ({"context_keep": 3}, "context_keep", "min_context_patches"),
    ({"context_keep": 190}, "context_keep", "at most 171"),
    ({"context_keep": 0.95}, "context_keep", "at most 171"),
    ({"sampler": "rasterized"}, "num_target_blocks", "other three"),
]


@pytest.mark.parametrize(("changes", "field", "reason"), INFEASIBLE)
def test_a_refusal_names_field_and_reason_and_its_advice_works(changes, field, reason):
    with pytest.raises(ValueError, match=rf"^{field} ") as caught:
        build_sampler(MaskSettings(**changes), GRID)
    message = str(caught.value)
    assert reason in message
    advice = re.search(r"try (?:\w+: )?(\[.*?\]|[\d.]+)", message)
    assert advice
    text = advice.group(1)
    value = (
        tuple(float(part) for part in text[1:-1].split(","))
        if text.startswith("[")
        else float(text)
        if "." in text
        else int(text)
    )
    build_sampler(MaskSettings(**{**changes, field: value}), GRID)


def test_the_advice_is_the_nearest_feasible_scale():
    with pytest.raises(ValueError, match="fewer than") as caught:
        build_sampler(MaskSettings(target_scale=(0.02, 0.2), min_target_patches=9), PatchGrid(8, 8))
    low = float(re.search(r"try target_scale: \[([\d.]+)", str(caught.value)).group(1))
    build_sampler(MaskSettings(target_scale=(low, 0.2), min_target_patches=9), PatchGrid(8, 8))
    with pytest.raises(ValueError, match="fewer than"):
        build_sampler(MaskSettings(target_scale=(low - 0.001, 0.2), min_target_patches=9), PatchGrid(8, 8))


@pytest.mark.parametrize("sampler", ["reference", "rasterized"])
def test_a_single_row_is_refused_where_a_sampler_needs_two(sampler):
    mask_settings = MaskSettings(sampler=sampler, num_target_blocks=3)
    with pytest.raises(ValueError, match="at least 2x2 patches, not 1x32"):
        build_sampler(mask_settings, PatchGrid(1, 32))
    build_sampler(MaskSettings(), PatchGrid(1, 64))


@examples(300)
@given(
    st.sampled_from(["exact", "reference", "random", "block", "rasterized"]),
    st.integers(1, 20),
    st.integers(1, 20),
    st.floats(1e-6, 1),
    st.floats(1e-6, 1),
    st.floats(1e-3, 1e3),
    st.integers(1, 400),
)
def test_nothing_but_a_value_error_that_names_a_field_comes_of_building(
    sampler, rows, columns, low, context, aspect, least
):
    mask_settings = MaskSettings(
        sampler=sampler,
        target_scale=(low, 1.0),
        context_scale=(context, 1.0),
        target_aspect_ratio=(aspect, aspect),
        min_target_patches=least,
    )
    message = ""
    try:
        build_sampler(mask_settings, PatchGrid(rows, columns))
    except ValueError as error:
        message = str(error)
    assert not message or message.split()[0] in vars(mask_settings)


def test_a_grid_without_patches_is_refused():
    with pytest.raises(ValueError, match="at least 1"):
        PatchGrid(0, 4)
