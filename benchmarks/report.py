"""How long the report of a sweep of 60 runs takes, by part, and what its statistics are worth on known surfaces.

Time is the wall clock, median of three reports from the journal to the files on disk. The statistics are the shares
that the tests hold to bounds, over more draws: optimum found, coverage of 90 % intervals, false differences.

    python benchmarks/report.py          # about two minutes, writes results/report-cpu.json
"""

from __future__ import annotations

import statistics
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))

from data_common import save
from sweep_records import sweep_events, write_journal

from orchestrator.protocol.point import Point
from orchestrator.report import load_sweep, summarize, write_report
from orchestrator.report.statistics.matched import compare
from orchestrator.report.statistics.noise import pool_noise
from orchestrator.report.statistics.surface import fit_surface
from orchestrator.report.statistics.trials import TrialSummary, group_geometries

LIMIT_S, ROUNDS = 30.0, 3
NUM_SURFACES, NUM_RESAMPLINGS = 40, 400
GRID = np.array([(x, y) for x in np.linspace(0, 1, 5) for y in np.linspace(0, 1, 4)])
OPTIMUM = np.array([0.5, 1 / 3])


def report_seconds() -> dict[str, float]:
    """Seconds of the whole report and of its statistics alone."""
    whole, judged = [], []
    for _ in range(ROUNDS):
        with tempfile.TemporaryDirectory() as folder:
            sweep_id = write_journal(Path(folder), sweep_events())
            started = time.perf_counter()
            config, record, uri = load_sweep(folder, sweep_id)
            write_report(config, record, uri)
            whole.append(time.perf_counter() - started)
            started = time.perf_counter()
            summarize(config, record)
            judged.append(time.perf_counter() - started)
    return {"whole_s": statistics.median(whole), "statistics_s": statistics.median(judged)}


def surfaces() -> dict[str, dict[str, float]]:
    """For each truth: how often the best of 20 cells is found from 3 seeds each, and coverage of 90 % intervals."""
    truths = {
        "bowl": lambda p: 60 - 18 * (p[:, 0] - OPTIMUM[0]) ** 2 - 12 * (p[:, 1] - OPTIMUM[1]) ** 2,
        "peak": lambda p: 50 + 8 * np.exp(-9 * ((p - OPTIMUM) ** 2).sum(axis=1)),
        "ridge": lambda p: 55 + 6 * np.exp(-8 * (p[:, 0] - 0.5 + 0.4 * (p[:, 1] - 1 / 3)) ** 2),
    }
    found: dict[str, dict[str, float]] = {}
    for name, truth in truths.items():
        hits, covered = [], []
        for seed in range(NUM_SURFACES):
            rng = np.random.default_rng(1000 + seed)
            values = np.repeat(truth(GRID), 3) + rng.standard_normal(3 * len(GRID))
            noise = pool_noise(values.reshape(-1, 3).tolist())
            surface = fit_surface(
                np.repeat(GRID, 3, axis=0), values, noise_sd=noise.seed_sd, freedom=noise.freedom
            )
            hits.append(surface.mean_and_sd(GRID)[0].argmax() == truth(GRID).argmax())
            queries = rng.random((200, 2))
            low, high = surface.interval(queries)
            covered.append(((low <= truth(queries)) & (truth(queries) <= high)).mean())
        found[name] = {"optimum_found": float(np.mean(hits)), "coverage_of_90": float(np.mean(covered))}
    return found


def false_differences() -> float:
    """How often one configuration under 3 + 3 seeds is called different from itself at equal images."""
    rng, different = np.random.default_rng(0), 0
    for _ in range(NUM_RESAMPLINGS):
        trials = [
            TrialSummary(
                trial_id=f"{side}{seed}",
                name=side,
                point=Point({"side": side}),
                seed=seed,
                state="finished",
                value=(value := 60 + rng.standard_normal()),
                images=1000,
                total_images=1000,
                curve={1000: value},
            )
            for side in "ab"
            for seed in range(3)
        ]
        (result,) = compare(group_geometries(trials), "probe/linear/mean", budgets=("images",))
        different += result.word == "beats"
    return different / NUM_RESAMPLINGS


def main() -> None:
    """Measure, print and save."""
    seconds, by_truth, share = report_seconds(), surfaces(), false_differences()
    print(
        f"report of 60 runs: {seconds['whole_s']:.1f} s (limit {LIMIT_S:g} s), of it statistics "
        f"{seconds['statistics_s']:.1f} s"
    )
    for name, each in by_truth.items():
        print(
            f"{name}: optimum found in {100 * each['optimum_found']:.0f} % of {NUM_SURFACES} sweeps, 90 % intervals "
            f"cover {100 * each['coverage_of_90']:.1f} %"
        )
    print(f"one configuration twice: called different in {100 * share:.1f} % of {NUM_RESAMPLINGS}")
    results = {"seconds": seconds, "surfaces": by_truth, "false_differences": share}
    save("report", results, packages=("scikit-learn", "scipy", "matplotlib", "numpy"))


if __name__ == "__main__":
    main()
