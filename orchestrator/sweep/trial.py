"""One trial as Ray Tune runs it: a driver that opens an attempt, runs the workers and reports the outcome."""

from __future__ import annotations

import json
import math
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import ray
from ray import tune
from ray.util.placement_group import PlacementGroup, PlacementGroupID, remove_placement_group

from orchestrator.config.models import RunConfig
from orchestrator.errors import TrainingError
from orchestrator.sweep.space import TrialPlan, make_trial, point_from_units
from orchestrator.train.launch import TrialResources, fit_trial
from orchestrator.train.loop import TrialJob

METRIC = "value"
"""Name under which Tune sees the ranking metric."""


@dataclass(frozen=True, kw_only=True)
class SweepJob:
    """What every trial of a sweep shares."""

    config: RunConfig
    shards_uri: str
    run_uri: str
    rungs_images: tuple[int, ...]
    resources: TrialResources
    scratch_dir: str


def run_trial(arguments: Mapping[str, Any], *, sweep: SweepJob, board: Any) -> None:
    """Tune's trainable: run one trial, or hear that it is done already, and report its ranking metric.

    `arguments` holds `trial` (JSON of point, seed and index) or, for a searcher, one number in [0, 1) or one choice
    index for every axis.

    Raises:
        TrainingError: The trial failed, or has no ranking metric.
    """
    plan = _plan(sweep.config, arguments)
    attempt_id = uuid.uuid4().hex[:8]
    index = None if "trial" not in arguments else plan.index
    ray.get(board.plan_trial.remote(plan.trial_id, index, plan.point, plan.seed, plan.name))
    state, groups = ray.get(
        board.attempt_started.remote(
            plan.trial_id, attempt_id, sweep.resources.num_gpus, sweep.resources.num_cpus
        )
    )
    for group in groups:
        remove_placement_group(PlacementGroup(PlacementGroupID.from_hex(group)))
    if state in ("pending", "running"):
        _run_attempt(plan, attempt_id, sweep=sweep, board=board)
    value = ray.get(board.result.remote(plan.trial_id)).get(sweep.config.sweep.metric, math.nan)
    if math.isnan(value):
        raise TrainingError(f"trial {plan.trial_id} has no {sweep.config.sweep.metric}")
    tune.report({METRIC: value})


def _run_attempt(plan: TrialPlan, attempt_id: str, *, sweep: SweepJob, board: Any) -> None:
    job = TrialJob(
        trial_id=plan.trial_id,
        config=plan.config,
        shards_uri=sweep.shards_uri,
        run_uri=sweep.run_uri,
        rungs_images=sweep.rungs_images,
    )
    try:
        fit_trial(
            job,
            board=board,
            attempt_id=attempt_id,
            resources=sweep.resources,
            scratch_dir=sweep.scratch_dir,
        )
    except TrainingError as err:
        ray.get(board.trial_ended.remote(plan.trial_id, "failed", str(err)))
    finally:
        ray.get(board.attempt_ended.remote(plan.trial_id, attempt_id))


def _plan(config: RunConfig, arguments: Mapping[str, Any]) -> TrialPlan:
    if "trial" in arguments:
        known = json.loads(arguments["trial"])
        return make_trial(config, known["point"], known["seed"], known["index"])
    return make_trial(config, point_from_units(config, arguments), config.sweep.seeds[0], -1)
