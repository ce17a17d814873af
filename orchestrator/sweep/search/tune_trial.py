"""One trial as Ray Tune sees it: handed to the coordinator, waited for, and its ranking metric reported.

Tune proposes and keeps count; the work is done by the slots. Nothing heavy is imported here, so that Tune's actors,
which are reused from trial to trial, start quickly and stay small.
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from typing import Any

from ray import tune

from orchestrator.config import first_seeds
from orchestrator.config.models import RunConfig
from orchestrator.protocol.point import Point
from orchestrator.sweep.client import CoordinatorCalls
from orchestrator.sweep.space import TrialPlan, config_at, make_trial, point_from_units

METRIC = "value"
"""Name under which Tune sees the ranking metric."""

HOURS = "hours"
"""Name under which Tune sees what the trial costs at its full length."""

_POLL_S = 0.1


def run_trial(arguments: Mapping[str, Any], *, config: RunConfig, coordinator: CoordinatorCalls) -> None:
    """Tune's trainable: have the coordinator run one trial, or hear that it is done already, and report its value.

    `arguments` holds `trial` (as `trial_text` writes it) or, for a searcher, one number in [0, 1) or one choice
    index for every axis.
    """
    plan = _plan(config, arguments)
    index = None if "trial" not in arguments else plan.index
    proposal = tune.get_context().get_trial_id() or ""
    coordinator.submit(plan.trial_id, index, plan.point, plan.seed, plan.name, proposal)
    while (value := coordinator.outcome(plan.trial_id)) is None:
        time.sleep(_POLL_S)
    hours = coordinator.hours(plan.trial_id) if config.sweep.trade_off else 0.0
    tune.report({METRIC: value, HOURS: hours})


def trial_text(point: Point, seed: int, index: int) -> str:
    """A trial that is known beforehand as text: to Tune it is one choice of many."""
    return json.dumps({"point": point.to_json(), "seed": seed, "index": index})


def _plan(config: RunConfig, arguments: Mapping[str, Any]) -> TrialPlan:
    if "trial" in arguments:
        known = json.loads(arguments["trial"])
        return make_trial(config, Point(known["point"]), known["seed"], known["index"])
    point, seed = point_from_units(config, arguments), first_seeds(config.sweep)[0]
    config_at(config, point, seed)  # a proposal that breaks a rule fails here, and is no trial of the sweep
    return make_trial(config, point, seed, -1)
