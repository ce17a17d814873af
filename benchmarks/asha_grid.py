"""Successive halving against the full grid on the embedded default: does it find a top geometry, and at what cost?

    python benchmarks/asha_grid.py --folder DIR     again with the same DIR to go on

Nine geometries (three scales by three aspect ratios) on the settings of sweeps/masks.yaml are trained under three seeds
each as a sweep on Ray, on one slot, and probed every 4,800 images. The first schedule is
run for real under two of the seeds. Each schedule then replays the grid's curves, in both variants of halving, under
every choice of one, two and three of the seeds, in many random orders of the trials and on one and more slots. The
winner is the finished geometry with the best mean over its seeds; its rank is by the grid's means over the same
seeds. Cost is device time of trials, as a share of the grid's. Writes benchmarks/results/asha_grid-cpu.json.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import platform
import random
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from sweep_common import Silent

from orchestrator.config import apply_overrides, load_config
from orchestrator.config.models import RunConfig
from orchestrator.protocol.point import Point
from orchestrator.sweep.core.ledger import ledger_of
from orchestrator.sweep.core.record import SweepRecord
from orchestrator.sweep.foresight.replay import RecordedCurves
from orchestrator.sweep.foresight.simulate import SimulatedCluster, simulate
from orchestrator.sweep.run.driver import SweepRequest, run_sweep
from orchestrator.sweep.space.points import TrialPlan, plan_sweep

RESULTS = Path(__file__).parent / "results"
SWEEP = Path(__file__).parents[1] / "sweeps" / "masks.yaml"
METRIC = "probe/linear/mean"
SPACE = {
    "masks.target_scale": {"choices": [[0.08, 0.12], [0.15, 0.2], [0.22, 0.25]]},
    "masks.target_aspect_ratio": {"choices": [[0.4, 0.5], [0.75, 1.5], [2.0, 3.0]]},
}
SEEDS = (0, 1, 2)
SEEDS_FOR_REAL = (0, 1)
SCHEDULES = (
    {"first_rung_images": 4800, "reduction_factor": 3},
    {"first_rung_images": 4800, "reduction_factor": 4},
    {"first_rung_images": 4800, "reduction_factor": 2},
    {"first_rung_images": 9600, "reduction_factor": 2},
)
ORDERS = 20
SLOTS = (1, 4)


def make_config(folder: Path, seeds: Sequence[int]) -> RunConfig:
    """The embedded default over more geometries; no health rule stops a trial, so that every curve is whole."""
    values = {
        "sweep.space": SPACE,
        "sweep.seeds": list(seeds),
        "storage.uri": str(folder),
        "probe.every_images": 4800,
        "health.stop_unhealthy": False,
        "train.gpus_per_worker": 0,
        "sweep.max_concurrent_trials": 1,
    }
    return apply_overrides(load_config(str(SWEEP)), values)


def run(config: RunConfig, folder: Path, sweep_id: str) -> SweepRecord:
    """A sweep on one CPU core to its end, from wherever an earlier call came to."""
    resume = (folder / sweep_id / "journal").exists()
    return run_sweep(
        SweepRequest(config=config, observer=Silent(), sweep_id=sweep_id, resume=resume, num_cpus=1)
    )


def under_seeds(grid: SweepRecord, seeds: Sequence[int]) -> SweepRecord:
    """The grid's trials of these seeds alone."""
    return replace(
        grid, trials={trial.trial_id: trial for trial in grid.trials.values() if trial.seed in seeds}
    )


def hours_of_trials(record: SweepRecord, config: RunConfig) -> float:
    """CPU core hours of the attempts, without what a slot waited."""
    return sum(hours.total for hours in ledger_of(record, config.budget).trials.values())


def images_of(record: SweepRecord) -> int:
    """Images that a sweep trained on."""
    return sum(trial.images for trial in record.trials.values())


def means(record: SweepRecord) -> dict[Point, float]:
    """The mean over its finished seeds of every geometry that has one, by its point."""
    values: dict[Point, list[float]] = {}
    for trial in record.trials.values():
        if trial.state == "finished":
            values.setdefault(trial.point, []).append(trial.metrics[METRIC])
    return {point: statistics.mean(each) for point, each in values.items()}


def winner_rank(record: SweepRecord, grid: SweepRecord) -> int:
    """Where a sweep's winner stands among the grid's geometries; 1 is the best."""
    finished, whole = means(record), means(grid)
    winner = max(finished, key=lambda point: finished[point])
    return 1 + sum(value > whole[winner] for value in whole.values())


def replay(
    config: RunConfig, trials: Sequence[TrialPlan], grid: SweepRecord, num_slots: int, order: int
) -> tuple[int, float]:
    """The winner's rank and the cost of one replay; order 0 is the file's own, others are random."""
    taken = random.Random(order).sample(list(trials), len(trials)) if order else list(trials)
    renumbered = [replace(trial, index=place) for place, trial in enumerate(taken)]
    cluster = SimulatedCluster(num_slots=num_slots, gpus_per_slot=0.0, start_s=0.0)
    record = simulate(config, renumbered, RecordedCurves(grid), cluster)
    return winner_rank(record, grid), hours_of_trials(record, config) / hours_of_trials(grid, config)


def replays(folder: Path, grid: SweepRecord, variant: str, schedule: Mapping[str, int]) -> dict[str, Any]:
    """Ranks and costs of one variant and schedule, by number of slots and by seeds."""
    found: dict[str, Any] = {"variant": variant, **schedule}
    for num_slots, count in itertools.product(SLOTS, range(1, len(SEEDS) + 1)):
        rows = {}
        for seeds in itertools.combinations(SEEDS, count):
            config = apply_overrides(
                make_config(folder, seeds), {"sweep.asha": {"variant": variant, **schedule}}
            )
            trials, curves = plan_sweep(config).trials, under_seeds(grid, seeds)
            listed = replay(config, trials, curves, num_slots, 0)
            ranks, shares = zip(
                *(replay(config, trials, curves, num_slots, order) for order in range(1, ORDERS + 1)),
                strict=True,
            )
            rows[",".join(map(str, seeds))] = {
                "in_the_files_order": {"rank_of_winner": listed[0], "cost_share": round(listed[1], 3)},
                "winner_in_top_three": sum(rank <= 3 for rank in ranks) / ORDERS,
                "cost_share_median": round(statistics.median(shares), 3),
                "cost_share_highest": round(max(shares), 3),
            }
        found[f"slots_{num_slots}_seeds_{count}"] = rows
    return found


def run_for_real(folder: Path, grid: SweepRecord) -> dict[str, Any]:
    """The first schedule, in the variant that a grid has by default, as a sweep on Ray."""
    config = apply_overrides(make_config(folder, SEEDS_FOR_REAL), {"sweep.asha": dict(SCHEDULES[0])})
    record, curves = run(config, folder, "halved"), under_seeds(grid, SEEDS_FOR_REAL)
    states = [trial.state for trial in record.in_order()]
    return {
        **SCHEDULES[0],
        "seeds": list(SEEDS_FOR_REAL),
        "rank_of_winner_in_the_grid": winner_rank(record, curves),
        "share_of_the_grids_images": round(images_of(record) / images_of(curves), 3),
        "cost_share": round(hours_of_trials(record, config) / hours_of_trials(curves, config), 3),
        "core_hours": round(hours_of_trials(record, config), 3),
        "core_hours_of_the_grid": round(hours_of_trials(curves, config), 3),
        "finished": states.count("finished"),
        "stopped": states.count("stopped"),
        "values_that_differ_from_the_grids": sum(
            row[METRIC] != grid.trials[trial.trial_id].history[images][METRIC]
            for trial in record.trials.values()
            for images, row in trial.history.items()
            if METRIC in row
        ),
    }


def main() -> None:
    """Grid, real run, replays; store the figures."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--folder", type=Path, default=Path("runs/asha-grid"))
    folder = parser.parse_args().folder.resolve()
    grid = run(make_config(folder, SEEDS), folder, "grid")
    report: dict[str, Any] = {
        "device": f"{platform.machine()}, {os.cpu_count()} cores, one used",
        "torch": torch.__version__,
        "trials": len(grid.trials),
        "images_a_trial": make_config(folder, SEEDS).train.images,
        "grid": {
            trial.name: {
                str(images): round(row[METRIC], 2)
                for images, row in sorted(trial.history.items())
                if METRIC in row
            }
            for trial in grid.in_order()
        },
        "grid_means": {point: round(value, 2) for point, value in means(grid).items()},
        "real": run_for_real(folder, grid),
    }
    print(json.dumps(report["real"], indent=2), flush=True)
    report["replays"] = [
        replays(folder, grid, variant, schedule)
        for variant in ("promotion", "stopping")
        for schedule in SCHEDULES
    ]
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / "asha_grid-cpu.json").write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
