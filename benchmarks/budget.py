"""A real sweep under a small cap: does it go over, does its ledger agree with a clock, how near did the quote come?

A sweep on a local Ray with two slots is quoted by `plan --calibrate`'s code, and then run under a cap that its trials
would pass. The time that worker groups were held is taken beside the ledger, by a monotonic clock around the call that
holds them. Without a GPU the cap is `budget.cpu_core_hours`; the rules are the same code. Writes
benchmarks/results/budget-cpu.json.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from sweep_common import SMALL_MODEL, Silent

from orchestrator.config import apply_overrides, default_config
from orchestrator.config.models import RunConfig
from orchestrator.sweep.core.ledger import Ledger, ledger_of
from orchestrator.sweep.core.record import SweepRecord
from orchestrator.sweep.foresight.plan import describe_plan
from orchestrator.sweep.foresight.quote import Quote
from orchestrator.sweep.run import slots
from orchestrator.sweep.run.driver import SweepRequest, run_sweep

RESULTS = Path(__file__).parent / "results"


class HeldTime:
    """Adds up, by a clock of its own, the time in which the driver held worker groups."""

    def __init__(self) -> None:
        self.seconds: list[float] = []
        self._fit = slots.fit_slot

    def __enter__(self) -> HeldTime:
        def timed(*arguments: Any, **options: Any) -> None:
            started = time.monotonic()
            try:
                self._fit(*arguments, **options)
            finally:
                self.seconds.append(time.monotonic() - started)

        slots.fit_slot = timed
        return self

    def __exit__(self, *error: object) -> None:
        slots.fit_slot = self._fit


def make_config(folder: Path, *, num_slots: int, cap: float) -> RunConfig:
    """Twelve trials of some ten seconds each, reporting every second or so."""
    return apply_overrides(
        default_config(),
        {
            "name": "budget",
            "data.scenes_train_images": 1000,
            "data.scenes_test_images": 400,
            "data.loader_threads": 0,
            "storage.uri": str(folder / "runs"),
            **SMALL_MODEL,
            "train.images": 10_080,
            "train.batch_size": 48,
            "train.report_every_images": 480,
            "train.checkpoint_every_images": 2400,
            "train.gpus_per_worker": 0,
            "probe.train_images": 600,
            "probe.test_images": 300,
            "sweep.space": {
                "masks.num_target_blocks": {"choices": [1, 2, 3, 4]},
                "optimizer.learning_rate": {"choices": [0.0005, 0.001, 0.002]},
            },
            "sweep.max_concurrent_trials": num_slots,
            "budget.cpu_core_hours": cap,
        },
    )


def compare_quote(quote: Quote, record: SweepRecord, ledger: Ledger) -> dict[str, float]:
    """What the finished trials cost beside what was quoted for them."""
    finished = [trial.trial_id for trial in record.in_order() if trial.state == "finished"]
    cost = sum(ledger.trials[trial_id].total for trial_id in finished)
    quoted = quote.baselines_hours + sum(quote.hours_of_trial[trial_id] for trial_id in finished)
    return {
        "whole_sweep_core_hours": round(quote.hours, 4),
        "uncertainty": round(quote.uncertainty, 3),
        "calibrated_s": round(quote.calibrated_s, 1),
        "finished_trials_core_hours": round(quoted, 5),
        "finished_trials_cost_core_hours": round(cost, 5),
        "cost_over_quote": round(cost / quoted, 3),
    }


def main() -> None:
    """Quote, run, compare, store."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--slots", type=int, default=2)
    parser.add_argument("--cap", type=float, default=0.06, help="CPU core hours.")
    parser.add_argument("--no-quote", action="store_true")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as name:
        config = make_config(Path(name), num_slots=arguments.slots, cap=arguments.cap)
        quote = None
        if not arguments.no_quote:
            quote = describe_plan(config, lambda text: print(text, flush=True)).quote
        with HeldTime() as held:
            record = run_sweep(SweepRequest(config=config, observer=Silent(), num_cpus=arguments.slots))
    ledger = ledger_of(record, config.budget)
    clock_hours = sum(held.seconds) * config.train.cpus_per_worker / 3600
    report = {
        "device": f"{platform.machine()}, {os.cpu_count()} cores",
        "load_average": round(os.getloadavg()[0], 1),
        "torch": torch.__version__,
        "slots": arguments.slots,
        "trials": len(record.trials),
        "trials_finished": sum(trial.state == "finished" for trial in record.trials.values()),
        "cap_core_hours": arguments.cap,
        "ledger_core_hours": round(ledger.total.total, 5),
        "spent_share_of_cap": round(ledger.total.total / arguments.cap, 4),
        "clock_core_hours": round(clock_hours, 5),
        "clock_share_of_cap": round(clock_hours / arguments.cap, 4),
        "ledger_over_clock": round(ledger.total.total / clock_hours, 4),
        "ledger": {phase: round(hours, 5) for phase, hours in ledger.total.to_json().items()},
        "quote": None if quote is None else compare_quote(quote, record, ledger),
        "notes": list(record.notes),
    }
    text = json.dumps(report, indent=2)
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / "budget-cpu.json").write_text(text + "\n", encoding="utf-8")
    print(text)


if __name__ == "__main__":
    main()
