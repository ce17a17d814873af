"""What a trial costs beyond its training: a sweep on Ray against the bare loop in one process.

The same trials run twice on the same data: one after the other through `train/loop/run` in this process, and as a sweep
with one slot. The first trial of the sweep pays for starting its worker group; the later ones are compared with the
bare loop's later ones, from the end of a trial to the end of the next. Stock Ray Train inside Ray Tune, a worker group
for every trial, was measured at 15 s a trial on two idle cores with a health interval of 0.1 s. Writes
benchmarks/results/trial_overhead-cpu.json.
"""

from __future__ import annotations

import itertools
import json
import os
import platform
import statistics
import tempfile
import time
from pathlib import Path

import torch
from sweep_common import Silent

from orchestrator.config import apply_overrides, default_config
from orchestrator.config.models import RunConfig
from orchestrator.data import prepare_data
from orchestrator.protocol.jobs import TrialJob
from orchestrator.sweep.run.driver import SweepRequest, run_sweep
from orchestrator.sweep.space.points import plan_sweep
from orchestrator.train.distributed import Rank
from orchestrator.train.evaluate.data_cache import DataCache
from orchestrator.train.loop.run import Run
from orchestrator.train.reporting import ListReporter

RESULTS = Path(__file__).parent / "results"
NUM_TRIALS = 6


def make_config(folder: Path) -> RunConfig:
    """Six short trials on a small set of scenes."""
    return apply_overrides(
        default_config(),
        {
            "data.scenes_train_images": 1000,
            "data.scenes_test_images": 400,
            "data.cache_dir": str(folder / "cache"),
            "storage.uri": str(folder / "runs"),
            "encoder.image_size_px": 48,
            "encoder.patch_size_px": 6,
            "encoder.width": 48,
            "encoder.depth": 3,
            "encoder.num_heads": 3,
            "predictor.width": 24,
            "predictor.depth": 2,
            "predictor.num_heads": 2,
            "train.images": 2560,
            "train.batch_size": 64,
            "probe.train_images": 600,
            "probe.test_images": 300,
            "sweep.space": {"masks.num_target_blocks": {"choices": list(range(1, NUM_TRIALS + 1))}},
            "sweep.max_concurrent_trials": 1,
        },
    )


def bare_seconds(config: RunConfig, folder: Path) -> list[float]:
    """Seconds of each trial in this process."""
    cache, uri, seconds = DataCache(), prepare_data(config).uri, []
    for trial in plan_sweep(config).trials:
        started = time.monotonic()
        job = TrialJob(
            trial_id=trial.trial_id, config=trial.config, shards_uri=uri, run_uri=str(folder / "bare")
        )
        Run(job, ListReporter(), Rank(), cache).train()
        seconds.append(time.monotonic() - started)
    return seconds


def sweep_seconds(config: RunConfig) -> tuple[float, list[float]]:
    """Seconds from the command to the end of the first trial, and from each end to the next."""
    started = time.time()
    record = run_sweep(SweepRequest(config=config, observer=Silent()))
    ends = [max(attempt.ended or 0.0 for attempt in trial.attempts.values()) for trial in record.in_order()]
    return ends[0] - started, [after - before for before, after in itertools.pairwise(ends)]


def main() -> None:
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as name:
        config = make_config(Path(name))
        bare = bare_seconds(config, Path(name))[1:]
        first, later = sweep_seconds(config)
    report = {
        "device": f"{platform.machine()}, {os.cpu_count()} cores",
        "load_average": round(os.getloadavg()[0], 1),
        "torch": torch.__version__,
        "trials": NUM_TRIALS,
        "bare_loop_s_per_later_trial": round(statistics.median(bare), 2),
        "sweep_s_per_later_trial": round(statistics.median(later), 2),
        "overhead_s_per_later_trial": round(statistics.median(later) - statistics.median(bare), 2),
        "first_trial_from_command_s": round(first, 1),
    }
    text = json.dumps(report, indent=2)
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / "trial_overhead-cpu.json").write_text(text + "\n", encoding="utf-8")
    print(text)


if __name__ == "__main__":
    main()
