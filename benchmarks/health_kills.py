"""Do the health rules stop lost runs early, and no good ones? 24 short trials, 8 of them broken on purpose.

Every trial runs twice through the real coordinator in this process: once under the default health rules, and, where
these stopped it, once more without them, so that what a stop cost or saved is known. Writes
benchmarks/results/health_kills-cpu.json.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import tempfile
import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from orchestrator.config import apply_overrides, load_config
from orchestrator.config.models import RunConfig
from orchestrator.data import prepare_data
from orchestrator.protocol.jobs import Outcome, TrialJob
from orchestrator.protocol.reports import Decision, TrialReport
from orchestrator.storage import MemoryStore
from orchestrator.sweep.core.record import TrialRecord
from orchestrator.sweep.run.coordinator import Coordinator
from orchestrator.train.distributed import Rank
from orchestrator.train.evaluate.data_cache import DataCache
from orchestrator.train.loop.run import Run

RESULTS = Path(__file__).parent / "results"
SWEEP = Path(__file__).parents[1] / "sweeps" / "masks.yaml"
METRIC = "probe/linear/mean"

STALLED = {"ema.start_momentum": 1.0, "ema.final_momentum": 1.0}
EMA_OFF = {"ema.start_momentum": 0.0, "ema.final_momentum": 0.0}
BROKEN: tuple[Mapping[str, Any], ...] = (
    STALLED,
    {**STALLED, "optimizer.learning_rate": 5e-4, "optimizer.start_learning_rate": 1e-4},
    {**STALLED, "masks.target_scale": [0.08, 0.12]},
    {**EMA_OFF, "optimizer.learning_rate": 0.02},
    {"optimizer.learning_rate": 1.0},
    {"optimizer.learning_rate": 5.0},
    {"optimizer.learning_rate": 30.0},
    {"optimizer.learning_rate": 1000.0},
)
SOUND: tuple[Mapping[str, Any], ...] = tuple(
    {"masks.target_scale": scale, "optimizer.learning_rate": rate}
    for scale in ([0.08, 0.12], [0.15, 0.2], [0.22, 0.25], [0.1, 0.2])
    for rate in (5e-4, 1e-3, 2e-3, 5e-3)
)


class CoordinatorInProcess:
    """Reports to a coordinator in this process, which knows every trial as `t`; checkpoints have their own folders."""

    def __init__(self, coordinator: Coordinator, attempt_id: str) -> None:
        self.coordinator, self.attempt_id = coordinator, attempt_id

    def report(self, report: TrialReport) -> Decision:
        """Deliver a report and hear the decision."""
        return self.coordinator.report(replace(report, trial_id="t"), self.attempt_id)


def make_config(folder: Path) -> RunConfig:
    """The demo's sweep, ten times shorter, reporting every tenth of a trial."""
    overrides = {
        "sweep.space": {},
        "train.images": 2400,
        "train.report_every_images": 240,
        "probe.every_images": None,
        "probe.train_images": 600,
        "probe.test_images": 400,
        "data.scenes_train_images": 2000,
        "data.scenes_test_images": 400,
        "storage.uri": str(folder / "runs"),
    }
    return apply_overrides(load_config(str(SWEEP)), overrides)


def run_one(
    config: RunConfig, point: Mapping[str, Any], uri: str, folder: Path, cache: DataCache
) -> TrialRecord:
    """One trial to its end or to a stop."""
    coordinator = Coordinator("memory", config, uri, store=MemoryStore())
    coordinator.submit("t", 0, point, 0, "t")
    coordinator.slot_opened("slot-0", 0.0, 1.0)
    assignment = coordinator.next_trial("slot-0")
    job = TrialJob(
        trial_id=f"t{time.time_ns()}",
        config=apply_overrides(config, dict(point)),
        shards_uri=uri,
        run_uri=str(folder / "run"),
    )
    Run(job, CoordinatorInProcess(coordinator, assignment.attempt_id), Rank(), cache).train()
    coordinator.attempt_ended("t", assignment.attempt_id, Outcome())
    return coordinator.record().trials["t"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--folder", type=Path, help="Where to go on when called again.")
    parser.add_argument("--seconds", type=float, default=86_400.0, help="Begin no trial after so many.")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as name:
        folder = (arguments.folder or Path(name)).resolve()
        folder.mkdir(parents=True, exist_ok=True)
        rows = run_all(folder, until_s=time.monotonic() + arguments.seconds)
    if len(rows) == len(BROKEN) + len(SOUND):
        write(rows)


def run_all(folder: Path, *, until_s: float) -> list[dict[str, Any]]:
    """A row for every trial, those of an earlier call as they were found in `folder`."""
    kept = folder / "rows.jsonl"
    rows = [json.loads(line) for line in kept.read_text().splitlines()] if kept.exists() else []
    config, cache = make_config(folder), DataCache()
    free = apply_overrides(config, {"health.stop_unhealthy": False})
    uri = prepare_data(config).uri
    run_one(
        free, {}, uri, folder, cache
    )  # data, decoded probe images and baselines are there for all that count
    trials = [*((True, point) for point in BROKEN), *((False, point) for point in SOUND)]
    for is_broken, point in trials[len(rows) :]:
        if time.monotonic() > until_s:
            break
        judged = run_one(config, point, uri, folder, cache)
        whole = judged if judged.state == "finished" else run_one(free, point, uri, folder, cache)
        rows.append(row_of(point, is_broken, judged, whole))
        text = json.dumps(rows[-1])
        print(text, flush=True)
        with kept.open("a") as file:
            file.write(text + "\n")
    return rows


def row_of(
    point: Mapping[str, Any], is_broken: bool, judged: TrialRecord, whole: TrialRecord
) -> dict[str, Any]:
    """What is told of a trial: under the rules, and to its end without them; a stop saves its share of the images."""
    share = 1 - judged.images / judged.total_images if judged.state == "stopped" else 0.0
    return {
        "point": dict(point),
        "broken": is_broken,
        "stopped": judged.state == "stopped",
        "reason": judged.reason,
        "stopped_at": judged.images / judged.total_images if judged.reason else None,
        "value_if_never_stopped": whole.metrics.get(METRIC),
        "core_seconds": 3600 * whole.hours.cpu_core,
        "core_seconds_saved": share * 3600 * whole.hours.cpu_core,
    }


def write(rows: list[dict[str, Any]]) -> None:
    """Summarise and store."""
    best = sorted(rows, key=lambda row: -_finite(row["value_if_never_stopped"]))[:5]
    report = {
        "device": f"{platform.machine()}, {os.cpu_count()} cores",
        "torch": torch.__version__,
        "trials": len(rows),
        "broken": sum(row["broken"] for row in rows),
        "broken_stopped_before_30_percent": sum(
            row["broken"] and row["stopped"] and row["stopped_at"] < 0.3 for row in rows
        ),
        "sound_stopped": sum(not row["broken"] and row["stopped"] for row in rows),
        "best_five_stopped": sum(row["stopped"] for row in best),
        "core_hours_if_never_stopped": round(sum(row["core_seconds"] for row in rows) / 3600, 4),
        "core_hours_saved": round(sum(row["core_seconds_saved"] for row in rows) / 3600, 4),
        "rows": rows,
    }
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / "health_kills-cpu.json").write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    print(json.dumps({key: value for key, value in report.items() if key != "rows"}, indent=2))


def _finite(value: float | None) -> float:
    return value if value is not None and value == value else float("-inf")


if __name__ == "__main__":
    main()
