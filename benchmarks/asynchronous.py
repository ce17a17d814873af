"""What an asynchronous evaluation costs the training, where each has a device of its own.

Training runs on one core; Ray and its evaluation tasks on another, with `probe.beside`. The same run is timed in turn
without probes on the way, with them beside, and with training stopping for them, from its first report to its last but
one: the same steps each time. Steps, reports, signs of collapse and checkpoints are the same in all three. Needs two
cores that are free; writes benchmarks/results/asynchronous-cpu.json.
"""

from __future__ import annotations

import json
import os
import platform
import statistics
import sys
import tempfile
import time
from pathlib import Path

import torch
from sweep_common import SMALL_MODEL

from orchestrator.cluster.connect import ray_cluster
from orchestrator.config import apply_overrides, default_config
from orchestrator.config.models import RunConfig
from orchestrator.data import prepare_data
from orchestrator.protocol.jobs import TrialJob
from orchestrator.protocol.reports import Decision, TrialReport
from orchestrator.train.distributed import Rank
from orchestrator.train.evaluate.data_cache import DataCache
from orchestrator.train.evaluate.evaluator import RayEvaluator
from orchestrator.train.loop.run import Run
from orchestrator.train.reporting import ListReporter

RESULTS = Path(__file__).parent / "results"
ROUNDS = 3
ARMS = ("no probes", "beside", "stopping")
EVERY_IMAGES = 1200
LIMIT = 1.05


class Timed(ListReporter):
    """Notes when each report was made."""

    def __init__(self) -> None:
        super().__init__()
        self.times_s: list[float] = []

    def report(self, report: TrialReport) -> Decision:
        """Note the time of a report."""
        self.times_s.append(time.monotonic())
        return super().report(report)


def make_config(folder: Path) -> RunConfig:
    """The encoder and the probes of sweeps/methods_scenes.yaml, probed every 25 steps."""
    return apply_overrides(
        default_config(),
        {
            "data.scenes_train_images": 2000,
            "data.scenes_test_images": 1000,
            "data.cache_dir": str(folder / "cache"),
            "data.loader_threads": 1,
            "storage.uri": str(folder / "runs"),
            **SMALL_MODEL,
            "train.images": 6 * EVERY_IMAGES,
            "train.batch_size": 48,
            "train.report_every_images": EVERY_IMAGES,
            "train.checkpoint_every_images": 6 * EVERY_IMAGES,
            "probe.train_images": 2000,
            "probe.test_images": 1000,
        },
    )


def timed_run(name: str, arm: str, config: RunConfig, folder: Path, cache: DataCache) -> tuple[float, float]:
    """Seconds of four stretches between reports in one arm, and those that evaluations beside it held a core."""
    changes = {} if arm == "no probes" else {"probe.every_images": EVERY_IMAGES}
    config = apply_overrides(config, changes)
    job = TrialJob(
        trial_id=name, config=config, shards_uri=prepare_data(config).uri, run_uri=str(folder / "runs/b")
    )
    evaluator = RayEvaluator(num_cpus=1.0, num_gpus=0.0) if arm == "beside" else None
    reporter = Timed()
    Run(job, reporter, Rank(), cache, evaluator=evaluator).train()
    held_s = sum(
        row.metrics.get("evaluation/cpu_core_s", 0.0) for report in reporter.reports for row in report.rows
    )
    return reporter.times_s[5] - reporter.times_s[1], held_s


def measure(folder: Path, cores: tuple[int, int]) -> dict[str, object]:
    """Every arm in every round, after a run that does not count; the order turns with the round."""
    os.sched_setaffinity(0, {cores[1]})
    with ray_cluster(num_cpus=1):
        os.sched_setaffinity(
            0, {cores[0]}
        )  # this thread and those that it starts; Ray's stay on the other core
        config, cache = make_config(folder), DataCache()
        seconds: dict[str, list[float]] = {arm: [] for arm in ARMS}
        held_s: list[float] = []
        timed_run(
            "first", "beside", config, folder, cache
        )  # Ray's process imports torch and decodes the images
        for number in range(ROUNDS):
            for arm in ARMS if number % 2 else reversed(ARMS):
                taken_s, evaluated_s = timed_run(f"{arm}-{number}", arm, config, folder, cache)
                seconds[arm].append(taken_s)
                held_s += [evaluated_s] if arm == "beside" else []
    ratios = {arm: [a / b for a, b in zip(seconds[arm], seconds[ARMS[0]], strict=True)] for arm in ARMS[1:]}
    return {
        "rounds": ROUNDS,
        "seconds": {arm: [round(value, 2) for value in values] for arm, values in seconds.items()},
        "times_the_seconds_without_probes": {
            arm: round(statistics.median(each), 3) for arm, each in ratios.items()
        },
        "by_round": {arm: [round(value, 3) for value in each] for arm, each in ratios.items()},
        "evaluations_held_core_s_a_run": round(statistics.median(held_s), 2),
        "limit_beside": LIMIT,
    }


def main() -> None:
    cores = sorted(os.sched_getaffinity(0))
    if len(cores) < 2:
        sys.exit("this benchmark needs two cores: one trains, the other evaluates")
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as name:
        figures = measure(Path(name), (cores[0], cores[1]))
    report = {
        "device": f"{platform.machine()}, training on one core, evaluations on another",
        "load_average": round(os.getloadavg()[0], 1),
        "torch": torch.__version__,
        **figures,
    }
    text = json.dumps(report, indent=2)
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / "asynchronous-cpu.json").write_text(text + "\n", encoding="utf-8")
    print(text)
    beside = figures["times_the_seconds_without_probes"]["beside"]  # type: ignore[index]
    if beside >= LIMIT:
        sys.exit(f"asynchronous evaluations took {beside} times the seconds, more than {LIMIT}")


if __name__ == "__main__":
    main()
