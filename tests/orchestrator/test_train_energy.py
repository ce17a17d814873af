"""Energy: joules between readings, unknown where a reading fails, each report's counted once."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from sweep_records import entries, record_of
from tiny_sweeps import tiny_config

from orchestrator.config.models import BudgetConfig
from orchestrator.data import prepare_data
from orchestrator.protocol.jobs import TrialJob
from orchestrator.protocol.metrics import GPU_ENERGY_J
from orchestrator.protocol.reports import Row
from orchestrator.sweep.core.fold import apply
from orchestrator.sweep.core.ledger import ledger_of
from orchestrator.sweep.core.record import SweepRecord
from orchestrator.sweep.watch.follower import cost_row
from orchestrator.train.distributed import Rank
from orchestrator.train.loop.energy import EnergyMeter, energy_meter, summed_j
from orchestrator.train.loop.run import Run
from orchestrator.train.reporting import ListReporter


def _counter(*readings_mj: int | None) -> Callable[[], int]:
    left = iter(readings_mj)

    def read() -> int:
        reading = next(left)
        if reading is None:
            raise OSError("GPU is lost")
        return reading

    return read


def test_a_meter_tells_the_joules_since_it_was_last_asked() -> None:
    meter = EnergyMeter(_counter(1_000, 3_500, 3_500))
    assert [meter.take_j(), meter.take_j()] == [2.5, 0.0]


def test_a_counter_that_fails_or_runs_backwards_tells_nothing() -> None:
    failing = EnergyMeter(_counter(1_000, None, 5_000))
    assert [failing.take_j(), failing.take_j()] == [None, None]
    assert EnergyMeter(_counter(5_000, 1_000)).take_j() is None
    assert EnergyMeter().take_j() is None


def test_no_energy_is_told_on_a_cpu(tmp_path: Path) -> None:
    assert energy_meter(tiny_config(tmp_path), torch.device("cpu")).take_j() is None


def test_ranks_are_summed_and_one_that_does_not_know_makes_it_unknown() -> None:
    assert summed_j([1.0, 2.5]) == {GPU_ENERGY_J: 3.5}
    assert summed_j([1.0, None]) == {}


def test_a_run_tells_the_energy_of_every_row(tmp_path: Path) -> None:
    config = tiny_config(tmp_path, train__images=320)
    reporter = ListReporter()
    job = TrialJob(
        trial_id="t", config=config, shards_uri=prepare_data(config).uri, run_uri=str(tmp_path / "r")
    )
    meter = EnergyMeter(_counter(0, 7_000, 10_000, 16_000))
    Run(job, reporter, Rank(), energy=meter).train()
    told = {row.images: row.metrics[GPU_ENERGY_J] for report in reporter.reports for row in report.rows}
    assert told == {0: 7.0, 160: 3.0, 320: 6.0}


def _event(kind: str, at_s: float, **fields: Any) -> dict[str, Any]:
    return {"kind": kind, "time_ms": int(1000 * at_s), "trial_id": "a", **fields}


def _report(at_s: float, attempt: str, images: int, joules: float, *, row_s: float) -> dict[str, Any]:
    row = {"images": images, "timestamp_ms": int(1000 * row_s), "metrics": {GPU_ENERGY_J: joules}}
    more = {"rung": None, "final": False, "correct": {}, "value": 0.0, "action": "continue", "reason": ""}
    return _event("report", at_s, attempt_id=attempt, images=images, rows=[row], **more)


@pytest.fixture
def record() -> SweepRecord:
    """A trial that dies after a report, sends its checkpoint's report again and does the rest once more."""
    held = {"num_gpus": 1.0, "num_cpus": 1.0}
    planned = {"index": 0, "point": {}, "seed": 0, "name": "a", "total_images": 200}
    return record_of(
        [
            _event("trial_planned", 0, **planned),
            _event("attempt_started", 0, attempt_id="1", **held),
            _report(10, "1", 100, 1.0e6, row_s=10),
            _report(20, "1", 200, 0.8e6, row_s=20),
            _event("attempt_ended", 25, attempt_id="1"),
            _event("attempt_started", 30, attempt_id="2", **held),
            _report(31, "2", 100, 1.0e6, row_s=10),
            _report(41, "2", 200, 1.8e6, row_s=41),
        ]
    )


def test_work_done_twice_is_counted_twice_and_a_report_sent_twice_once(record: SweepRecord) -> None:
    assert record.trials["a"].energy_kwh == pytest.approx(1.0)
    ledger = ledger_of(record, BudgetConfig())
    assert ledger.total_energy_kwh == pytest.approx(1.0)
    assert "1 kWh of the trials' GPUs" in ledger.text()
    assert ledger.to_json()["energy_kwh_of_trial"] == {"a": pytest.approx(1.0)}


def test_the_energy_of_a_sweep_is_unknown_when_that_of_one_trial_is(record: SweepRecord) -> None:
    more = [
        _event("trial_planned", 50, index=1, point={}, seed=1, name="b", total_images=9) | B,
        _event("attempt_started", 50, attempt_id="3", num_gpus=1.0, num_cpus=1.0) | B,
    ]
    for entry in entries(more):
        apply(record, entry)
    ledger = ledger_of(record, BudgetConfig())
    assert ledger.total_energy_kwh is None
    assert "energy                unknown" in ledger.text()


B = {"trial_id": "b"}


def test_the_energy_goes_to_the_trackers_cost_row(record: SweepRecord) -> None:
    row: Row = cost_row(record.trials["a"], 200, 41_000)
    assert row.metrics["cost/energy_kwh"] == pytest.approx(1.0)
    record.trials["a"].energy_j = None
    assert "cost/energy_kwh" not in cost_row(record.trials["a"], 200, 41_000).metrics
