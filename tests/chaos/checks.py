"""What a sweep left behind, checked against the same trials run undisturbed in one process."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from orchestrator.config import apply_overrides, load_config
from orchestrator.config.models import RunConfig
from orchestrator.data import prepare_data
from orchestrator.data.read.order import GlobalOrder
from orchestrator.protocol.jobs import TrialJob
from orchestrator.storage import open_store
from orchestrator.sweep.journal.log import read_events
from orchestrator.sweep.space.points import plan_sweep
from orchestrator.train.distributed import Rank
from orchestrator.train.loop.checkpoint import load_latest
from orchestrator.train.loop.run import Run
from orchestrator.train.reporting import ListReporter
from orchestrator.train.stores import checkpoint_store


def compare(config_file: Path, sweep_id: str, folder: Path, environment: Mapping[str, str]) -> dict[str, Any]:
    """Figures and claims of a sweep that has ended."""
    os.environ.update(environment)
    config = load_config(str(config_file))
    uri = f"{config.storage.uri}/{sweep_id}"
    events = [entry.to_json() for entry in read_events(open_store(uri, config.storage))]
    plan = {trial.trial_id: trial for trial in plan_sweep(config).trials}
    ended = [event for event in events if event["kind"] == "trial_ended"]
    points = Counter(
        (e["trial_id"], row["images"]) for e in events if e["kind"] == "report" for row in e["rows"]
    )
    reference = apply_overrides(
        config, {"storage.uri": str(folder / "undisturbed"), "storage.endpoint_url": None}
    )
    tracked = tracked_points(config)
    equal = [weights_equal(config, reference, uri, trial_id, plan[trial_id]) for trial_id in plan]
    return {
        "claims": {
            "every trial finished, once": sorted(e["trial_id"] for e in ended) == sorted(plan)
            and all(event["state"] == "finished" for event in ended),
            "no trial ran after its end": not ran_after_end(events),
            "no sample is repeated within an epoch": not repeated_samples(reference),
            "final weights equal those of undisturbed trials, bit for bit": all(equal),
            "one MLflow run for each trial": tracked["runs"] == len(plan),
            "no MLflow point is doubled": tracked["doubled"] == 0,
            "no MLflow point is missing": tracked["points"] >= len(points),
        },
        "trials": len(plan),
        "attempts": sum(event["kind"] == "attempt_started" for event in events),
        "drivers": sum(event["kind"] in ("sweep_started", "sweep_resumed") for event in events),
        "events": len(events),
        "points": len(points),
        "points_sent_again_after_a_resume": sum(count - 1 for count in points.values()),
        "mlflow": tracked,
    }


def ran_after_end(events: list[Mapping[str, Any]]) -> list[str]:
    """Trials that an attempt was opened for after they had ended."""
    done: set[str] = set()
    found = []
    for event in events:
        if event["kind"] == "trial_ended":
            done.add(event["trial_id"])
        if event["kind"] == "attempt_started" and event["trial_id"] in done:
            found.append(event["trial_id"])
    return found


def repeated_samples(config: RunConfig) -> int:
    """How often a sample comes twice in an epoch of the undisturbed order, which equal weights say was kept."""
    infos, first_id = prepare_data(config).split(config.data.train_split)
    order = GlobalOrder(
        [info.num_samples for info in infos],
        seed=config.train.seed,
        window_shards=config.data.shuffle_shards,
        first_id=first_id,
    )
    epochs, ids = order.locate(np.arange(config.train.images, dtype=np.int64))
    return len(epochs) - len(set(zip(epochs.tolist(), ids.tolist(), strict=True)))


def weights_equal(config: RunConfig, reference: RunConfig, uri: str, trial_id: str, trial: Any) -> bool:
    """Whether a trial's last checkpoint holds the weights of the same trial run in this process."""
    shards = prepare_data(reference)
    undisturbed = TrialJob(
        trial_id=trial_id,
        config=apply_overrides(
            trial.config, {"storage.uri": reference.storage.uri, "storage.endpoint_url": None}
        ),
        shards_uri=shards.uri,
        run_uri=f"{reference.storage.uri}/s",
    )
    Run(undisturbed, ListReporter(), Rank()).train()
    theirs = load_latest(checkpoint_store(undisturbed))
    ours = load_latest(open_store(f"{uri}/trials/{trial_id}/checkpoints", config.storage))
    assert ours is not None
    assert theirs is not None
    return ours.step == theirs.step and all(
        torch.equal(value, theirs.tensors[name]) for name, value in ours.tensors.items()
    )


def tracked_points(config: RunConfig) -> dict[str, int]:
    """Child runs, points of their metrics, and points that stand twice at one step."""
    from mlflow import MlflowClient

    client = MlflowClient(config.tracking.uri)
    experiments = [experiment.experiment_id for experiment in client.search_experiments()]
    runs = [run for run in client.search_runs(experiments) if "mlflow.parentRunId" in run.data.tags]
    steps: set[tuple[str, int]] = set()
    doubled = 0
    for run in runs:
        for key in run.data.metrics:
            history = [point.step for point in client.get_metric_history(run.info.run_id, key)]
            doubled += len(history) - len(set(history))
            steps.update((run.info.run_id, step) for step in history)
    return {"runs": len(runs), "points": len(steps), "doubled": doubled}
