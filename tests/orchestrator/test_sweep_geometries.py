from __future__ import annotations

from typing import Any

import pytest

from jepa_core.flops import ModelDims
from jepa_core.objectives import build_objective
from orchestrator.config import apply_overrides, default_config
from orchestrator.sweep.foresight.geometries import audit_sweep
from orchestrator.sweep.foresight.model_costs import model_dims
from orchestrator.sweep.space.points import plan_sweep

SCALES = [[0.1, 0.2], [0.15, 0.2], [0.2, 0.25]]


def swept(space: dict[str, Any], **overrides: Any):
    """The configuration of a sweep over `space`, its plan and its audit."""
    values = {key.replace("__", "."): value for key, value in overrides.items()}
    config = apply_overrides(default_config(), {"sweep.space": space, **values})
    plan = plan_sweep(config)
    return config, plan, audit_sweep(config, plan)


def test_each_geometry_is_audited_once_whatever_else_varies():
    rates = {"choices": [1e-3, 1e-4]}
    _, plan, audit = swept(
        {"masks.target_scale": {"choices": SCALES}, "optimizer.learning_rate": rates}, sweep__seeds=[0, 1]
    )
    assert len(plan.trials) == 12
    assert [len(geometry.trial_ids) for geometry in audit.geometries] == [4, 4, 4]
    assert audit.of_trial(plan.trials[5].trial_id) in audit.geometries


def test_an_axis_that_comes_to_the_same_blocks_is_called_idle():
    scales = {"choices": [[0.85, 1.0], [0.9, 1.0], [0.95, 1.0]]}
    _, plan, audit = swept({"masks.context_scale": scales}, masks__sampler="reference")
    assert len(plan.trials) == 1
    assert audit.notes[0] == (
        "axis masks.context_scale does nothing: [0.85, 1], [0.9, 1], [0.95, 1] come to the same blocks "
        "on a 14x14 grid"
    )
    assert "always makes blocks of 13x13 patches" in audit.notes[1]


def test_an_axis_that_the_sampler_does_not_read_is_called_idle():
    _, _, audit = swept({"masks.context_keep": {"choices": [0.2, 0.25]}}, masks__sampler="reference")
    assert "axis masks.context_keep does nothing: the sampler 'reference' does not read it" in audit.notes


def test_values_of_an_axis_that_are_one_geometry_are_named():
    _, _, audit = swept({"masks.context_keep": {"choices": [0.2, 0.25, 49]}})
    assert "axis masks.context_keep: 0.25, 49 come to the same blocks on a 14x14 grid" in audit.notes


def test_what_follows_an_axis_meant_for_something_else_is_reported():
    scales = {"choices": [[low / 100, low / 100 + 0.05] for low in (10, 15, 20, 25, 30)]}
    _, _, audit = swept({"masks.target_scale": scales}, masks__sampler="reference")
    (kept,) = [note for note in audit.notes if note.startswith("kept context follows")]
    assert "masks.target_scale (correlation -0.9" in kept


def test_a_search_that_proposes_its_points_is_described_by_points_of_its_space():
    space = {"masks.target_scale": {"center": [0.1, 0.3], "width": 0.05}}
    _, plan, audit = swept(space, sweep__search="optuna", sweep__num_trials=50)
    assert plan.trials == ()
    assert audit.is_sampled
    centers = [sum(geometry.point["masks.target_scale"]) / 2 for geometry in audit.geometries]
    assert min(centers) < 0.14
    assert max(centers) > 0.26


def test_a_short_range_repeats_no_value_and_what_is_the_same_everywhere_follows_nothing():
    space = {
        "masks.num_target_blocks": {"int_uniform": [1, 4]},
        "optimizer.learning_rate": {"uniform": [0.1, 0.2]},
    }
    _, _, audit = swept(space, sweep__search="optuna", sweep__num_trials=5)
    assert [note for note in audit.notes if "come to the same blocks" in note] == []
    assert [note for note in audit.notes if note.startswith("kept context follows")] == []


def test_the_batch_of_a_device_is_part_of_a_reference_geometry():
    batches = {"choices": [2048, 128]}
    _, _, audit = swept({"train.batch_size": batches}, masks__sampler="reference")
    one, many = (geometry.audit.context_fraction.mean for geometry in audit.geometries)
    assert many - one > 0.02
    _, _, audit = swept({"train.batch_size": batches})
    assert len(audit.geometries) == 1


def test_dimensions_without_weights_are_those_of_the_built_model():
    config = apply_overrides(default_config(), {"encoder.depth": 2, "encoder.name": "vit_tiny_patch16_224"})
    built = build_objective(
        encoder=config.encoder, predictor=config.predictor, objective=config.objective, seed=0
    )
    assert model_dims(config) == ModelDims.of(built.context_encoder, built.predictor)


def test_a_published_geometry_costs_what_was_published():
    """84 GFLOP an image for ViT-B/16 at the batch of 128 on each GPU."""
    _, _, audit = swept(
        {},
        masks__sampler="reference",
        masks__min_target_patches=11,
        masks__min_context_patches=11,
        encoder__name="vit_base_patch16_224",
        train__batch_size=128,
    )
    assert audit.geometries[0].flops.total / 1e9 == pytest.approx(84, abs=1)


def test_methods_that_draw_their_own_masks_are_costed_and_not_audited():
    methods = {"choices": ["ijepa", "mae"]}
    _, plan, audit = swept(
        {"objective.name": methods}, encoder__name="vit_base_patch16_224", masks__sampler="reference"
    )
    jepa, mae = (audit.flops_per_image[trial.trial_id] / 1e9 for trial in plan.trials)
    assert len(audit.geometries) == 1
    assert jepa == pytest.approx(83, abs=2)
    assert mae == pytest.approx(56.5, abs=0.1)
    assert audit.notes[0].startswith("mae: draws what its own settings say")


def test_points_that_differ_in_masks_alone_are_one_run_of_a_method_that_reads_none():
    points = [{"name": str(scale), "set": {"masks.target_scale": scale}} for scale in SCALES]
    _, plan, audit = swept({}, objective__name="mae", sweep__points=points)
    assert len(plan.trials) == 1
    assert "reads no masks, so it is the same run as" in plan.notes[0]
    assert "axis masks.target_scale does nothing: no method of the sweep reads it" in audit.notes
