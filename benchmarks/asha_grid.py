"""Successive halving against the full grid on the embedded default: does it find a top geometry, and at what cost?

    python benchmarks/asha_grid.py --folder DIR [--seconds N]     again with the same DIR to go on

Nine geometries on the settings of sweeps/masks.yaml, for 9,600 images each, are trained in this process, as one
sweep with its journal in DIR, probed at every rung that the schedules below have. Each schedule then replays these
curves in many random orders of the trials and on one and more slots; the first schedule is also run for real, on Ray.
The cost is device time of trials. Writes benchmarks/results/asha_grid-cpu.json.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import random
import statistics
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from sweep_common import Silent

from orchestrator.config import apply_overrides, load_config
from orchestrator.config.models import RunConfig
from orchestrator.data import prepare_data
from orchestrator.storage import open_store
from orchestrator.sweep.account import account
from orchestrator.sweep.board import Board
from orchestrator.sweep.journal import read_events
from orchestrator.sweep.record import SweepRecord, fold
from orchestrator.sweep.replay import RecordedCurves
from orchestrator.sweep.runner import SweepRequest, run_sweep
from orchestrator.sweep.simulate import SimulatedCluster, simulate
from orchestrator.sweep.space import TrialPlan, plan_sweep
from orchestrator.train.distributed import Rank
from orchestrator.train.loop import Run
from orchestrator.train.reporting import Decision, TrialReport
from orchestrator.train.reuse import DataCache
from orchestrator.train.slot import Outcome

RESULTS = Path(__file__).parent / "results"
SWEEP = Path(__file__).parents[1] / "sweeps" / "masks.yaml"
METRIC = "probe/linear/mean"
SPACE = {
    "masks.target_scale": {"choices": [[0.05, 0.08], [0.08, 0.12], [0.15, 0.2]]},
    "masks.target_aspect_ratio": {"choices": [[0.4, 0.5], [0.75, 1.5], [2.0, 3.0]]},
}
SCHEDULES = (
    {"first_rung_images": 1200, "reduction_factor": 4},
    {"first_rung_images": 1200, "reduction_factor": 2},
    {"first_rung_images": 2400, "reduction_factor": 4},
    {"first_rung_images": 2400, "reduction_factor": 2},
)
PROBED_AT = (1200, 2400, 4800)
ORDERS = 20
SLOTS = (1, 4)


class InProcess:
    """Reports to a board in this process."""

    def __init__(self, board: Board, attempt_id: str) -> None:
        self.board, self.attempt_id = board, attempt_id

    def report(self, report: TrialReport) -> Decision:
        """Deliver a report and hear the decision."""
        return self.board.report(report, self.attempt_id)


def make_config(folder: Path) -> RunConfig:
    """The embedded default over more geometries; no health rule stops a trial, so that every curve is whole."""
    values = {
        "sweep.space": SPACE,
        "storage.uri": str(folder / "runs"),
        "data.loader_threads": 0,
        "probe.every_images": None,
        "health.stop_unhealthy": False,
        "train.images": 9600,
        "train.report_every_images": 2400,
        "train.checkpoint_every_images": 2400,
        "probe.train_images": 3000,
        "train.gpus_per_worker": 0,
        "sweep.max_concurrent_trials": 1,
    }
    return apply_overrides(load_config(str(SWEEP)), values)


def run_grid(config: RunConfig, folder: Path, seconds: float) -> SweepRecord:
    """Every trial to its end, from wherever an earlier call came to; begins none after so many seconds."""
    until_s = time.monotonic() + seconds
    uri, cache = str(folder / "grid"), DataCache()
    board = Board(uri, config, prepare_data(config).uri)
    board.slot_opened("slot-0", 0.0, 1.0)
    for trial in plan_sweep(config).trials:
        board.submit(trial.trial_id, trial.index, trial.point, trial.seed, trial.name)
    while time.monotonic() < until_s and (assignment := board.next_trial("slot-0")).job is not None:
        job = replace(assignment.job, rungs_images=PROBED_AT)
        Run(job, InProcess(board, assignment.attempt_id), Rank(), cache).train()
        board.attempt_ended(job.trial_id, assignment.attempt_id, Outcome())
        ended = board.record().trials[job.trial_id]
        print(f"{ended.index:2d} {ended.metrics[METRIC]:.2f}  {ended.name}", flush=True)
    found = fold(read_events(open_store(uri)))
    found.trials = {trial.trial_id: found.trials[trial.trial_id] for trial in plan_sweep(config).trials}
    return found


def hours_of_trials(record: SweepRecord, config: RunConfig) -> float:
    """CPU core hours of the attempts, without what a slot waited."""
    return sum(hours.total for hours in account(record, config.budget).trials.values())


def winner_rank(record: SweepRecord, grid: SweepRecord) -> int:
    """Where the best finished trial of a sweep stands among the grid's values; 1 is the best."""
    finished = [trial for trial in record.trials.values() if trial.state == "finished"]
    winner = max(finished, key=lambda trial: trial.metrics[METRIC])
    values = {trial_id: trial.metrics[METRIC] for trial_id, trial in grid.trials.items()}
    return 1 + sum(value > values[winner.trial_id] for value in values.values())


def replay_schedule(
    config: RunConfig, schedule: Mapping[str, int], trials: Sequence[TrialPlan], grid: SweepRecord
) -> dict[str, Any]:
    """Ranks and costs of one schedule over random orders of the trials, by number of slots."""
    halved = apply_overrides(config, {"sweep.asha": dict(schedule)})
    whole = hours_of_trials(grid, config)
    found: dict[str, Any] = {**schedule, "orders": ORDERS}
    for num_slots in SLOTS:
        ranks, shares = [], []
        for number in range(ORDERS + 1):  # the file's own order first
            order = random.Random(number).sample(list(trials), len(trials)) if number else list(trials)
            renumbered = [replace(trial, index=place) for place, trial in enumerate(order)]
            cluster = SimulatedCluster(num_slots=num_slots, gpus_per_slot=0.0, start_s=0.0)
            record = simulate(halved, renumbered, RecordedCurves(grid), cluster)
            ranks.append(winner_rank(record, grid))
            shares.append(hours_of_trials(record, config) / whole)
        as_listed = {"rank_of_winner": ranks.pop(0), "cost_share": round(shares.pop(0), 3)}
        found[f"slots_{num_slots}"] = {
            "in_the_files_order": as_listed,
            "winner_in_top_three": sum(rank <= 3 for rank in ranks) / ORDERS,
            "winner_is_the_grids": sum(rank == 1 for rank in ranks) / ORDERS,
            "cost_share_median": round(statistics.median(shares), 3),
            "cost_share_highest": round(max(shares), 3),
        }
    return found


def run_for_real(config: RunConfig, grid: SweepRecord) -> dict[str, Any]:
    """The first schedule as a sweep on Ray."""
    halved = apply_overrides(config, {"sweep.asha": dict(SCHEDULES[0])})
    record = run_sweep(SweepRequest(config=halved, observer=Silent(), num_cpus=1))
    states = [trial.state for trial in record.in_order()]
    return {
        **SCHEDULES[0],
        "rank_of_winner_in_the_grid": winner_rank(record, grid),
        "share_of_the_grids_images": round(
            sum(trial.images for trial in record.trials.values())
            / sum(trial.images for trial in grid.trials.values()),
            3,
        ),
        "cost_share": round(hours_of_trials(record, config) / hours_of_trials(grid, config), 3),
        "finished": states.count("finished"),
        "stopped": states.count("stopped"),
    }


def main() -> None:
    """Grid, replays, real run; store the figures."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--folder", type=Path, default=Path("runs/asha-grid"))
    parser.add_argument("--seconds", type=float, default=86_400.0)
    parser.add_argument("--real", action="store_true", help="Run the first schedule on Ray, too.")
    arguments = parser.parse_args()
    folder = arguments.folder.resolve()
    torch.set_num_threads(1)
    config = make_config(folder)
    grid = run_grid(config, folder, arguments.seconds)
    if any(trial.state != "finished" for trial in grid.trials.values()):
        print("the grid is not complete: call again", flush=True)
        return
    report = {
        "device": f"{platform.machine()}, {os.cpu_count()} cores, one used",
        "torch": torch.__version__,
        "trials": len(grid.trials),
        "images_a_trial": config.train.images,
        "grid": {
            trial.name: {
                str(images): round(row[METRIC], 2) for images, row in trial.history.items() if METRIC in row
            }
            for trial in grid.in_order()
        },
        "replays": [replay_schedule(config, each, plan_sweep(config).trials, grid) for each in SCHEDULES],
    }
    print(json.dumps(report["replays"], indent=2), flush=True)
    if arguments.real:
        report["real"] = run_for_real(config, grid)
        print(json.dumps(report["real"], indent=2))
    text = json.dumps(report, indent=2)
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / "asha_grid-cpu.json").write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
