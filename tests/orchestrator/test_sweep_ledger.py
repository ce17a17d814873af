"""The ledger: every allocated hour is somewhere, and nowhere twice."""

import math
from typing import Any

import pytest
from sweep_records import record_of

from orchestrator.config.models import BudgetConfig
from orchestrator.sweep.core.ledger import ledger_of
from orchestrator.sweep.core.record import SweepRecord

PLANNED = {"index": 0, "point": {}, "seed": 0, "name": "a", "total_images": 100}


def _event(kind: str, at_s: float, **fields: Any) -> dict[str, Any]:
    return {"kind": kind, "time_ms": int(1000 * at_s), **fields}


def _report(at_s: float, attempt: str, images: int, **metrics: float) -> dict[str, Any]:
    row = {
        "images": images,
        "timestamp_ms": int(1000 * at_s),
        "metrics": {key.replace("__", "/"): value for key, value in metrics.items()},
    }
    more = {
        "rung": None,
        "final": False,
        "correct": {},
        "value": math.nan,
        "action": "continue",
        "reason": "",
    }
    return _event("report", at_s, trial_id="a", attempt_id=attempt, images=images, rows=[row], **more)


def _record() -> SweepRecord:
    """A slot of two GPUs held for an hour; its trial dies once, 100 s after a report, and goes on."""
    held = {"num_gpus": 2.0, "num_cpus": 8.0}
    return record_of(
        [
            _event("trial_planned", 0, trial_id="a", **PLANNED),
            _event("slot_started", 0, slot_id="s", **held),
            _event("attempt_started", 100, trial_id="a", attempt_id="1", slot_id="s", **held),
            _report(900, "1", 50, train__images_per_s=0.1, data__wait_fraction=0.2, time__probe_s=60.0),
            _event("attempt_ended", 1000, trial_id="a", attempt_id="1", error="killed"),
            _event("attempt_started", 1200, trial_id="a", attempt_id="2", slot_id="s", **held),
            _report(1900, "2", 100, train__images_per_s=0.1, time__checkpoint_s=40.0),
            _event("attempt_ended", 2000, trial_id="a", attempt_id="2", error=""),
            _event("trial_ended", 2000, trial_id="a", state="finished", reason=""),
            _event("slot_ended", 3600, slot_id="s", error=""),
        ]
    )


def test_the_ledger_adds_up_to_what_was_held() -> None:
    found = ledger_of(_record(), BudgetConfig())
    assert found.device == "GPU"
    assert found.total.total == pytest.approx(2.0)
    assert found.trials["a"].total + found.idle == pytest.approx(2.0)


def test_each_phase_is_what_was_measured() -> None:
    hours = ledger_of(_record(), BudgetConfig()).trials["a"]
    seconds = {name: value * 3600 / 2 for name, value in hours.to_json().items()}
    assert seconds == pytest.approx(
        {
            "train": 900.0,
            "wait": 100.0,
            "probe": 60.0,
            "checkpoint": 40.0,
            "start": 500.0,
            "lost": 100.0,
            "idle": 0.0,
            "beside": 0.0,
            "total": 1700.0,
        }
    )


def test_the_cap_and_the_price_are_told_in_the_device_that_was_held() -> None:
    text = ledger_of(_record(), BudgetConfig(gpu_hours=4.0, price_per_gpu_hour=2.5)).text()
    assert text.startswith("2.000 GPU hours of 4 (50.0 %), 5.00 USD")
    assert ledger_of(_record(), BudgetConfig()).money is None


@pytest.mark.parametrize(("num_gpus", "device"), [(1.0, "GPU"), (0.0, "CPU core")])
def test_evaluations_beside_training_are_told_apart(num_gpus: float, device: str) -> None:
    held = {"num_gpus": num_gpus, "num_cpus": 2.0}
    beside = {"evaluation__cpu_core_s": 720.0, "evaluation__gpu_s": 360.0}
    found = ledger_of(
        record_of(
            [
                _event("trial_planned", 0, trial_id="a", **PLANNED),
                _event("slot_started", 0, slot_id="s", **held),
                _event("attempt_started", 0, trial_id="a", attempt_id="1", slot_id="s", **held),
                _report(1800, "1", 50, **beside),
                _event("attempt_ended", 3600, trial_id="a", attempt_id="1", error=""),
                _event("slot_ended", 3600, slot_id="s", error=""),
            ]
        ),
        BudgetConfig(),
    )
    hours = {"GPU": 0.1, "CPU core": 0.2}[device]
    assert (found.device, found.idle) == (device, 0.0)
    assert found.total.beside == pytest.approx(hours)
    assert found.total.total == pytest.approx(hours + (num_gpus or 2.0))
    assert ("0.2000 CPU core hours of asynchronous probes" in found.text()) == (device == "GPU")


def test_a_slot_that_is_open_is_charged_up_to_now() -> None:
    events = [_event("slot_started", 0, slot_id="s", num_gpus=0.0, num_cpus=2.0)]
    found = ledger_of(record_of(events), BudgetConfig(), now_s=1800.0)
    assert (found.device, found.idle) == ("CPU core", pytest.approx(1.0))


def test_measurements_that_exceed_the_clock_are_scaled_to_it() -> None:
    events = [
        _event("trial_planned", 0, trial_id="a", **PLANNED),
        _event("attempt_started", 0, trial_id="a", attempt_id="1", slot_id="s", num_gpus=1.0, num_cpus=1.0),
        _report(10, "1", 50, train__images_per_s=1.0),
        _event("attempt_ended", 36, trial_id="a", attempt_id="1", error=""),
        _event("slot_started", 0, slot_id="s", num_gpus=1.0, num_cpus=1.0),
    ]
    assert ledger_of(record_of(events), BudgetConfig()).trials["a"].total == pytest.approx(0.01)


def test_a_trial_that_went_on_with_fewer_workers_is_charged_what_each_attempt_held() -> None:
    two, one = {"num_gpus": 2.0, "num_cpus": 2.0}, {"num_gpus": 1.0, "num_cpus": 1.0}
    record = record_of(
        [
            _event("trial_planned", 0, trial_id="a", **PLANNED),
            _event("slot_started", 0, slot_id="s", **two),
            _event("attempt_started", 0, trial_id="a", attempt_id="1", slot_id="s", **two),
            _report(1000, "1", 50, train__images_per_s=0.05),
            _event("attempt_ended", 1000, trial_id="a", attempt_id="1", error="its workers died"),
            _event("slot_ended", 1000, slot_id="s", error="its workers died"),
            _event("slot_started", 1000, slot_id="s", **one),
            _event("attempt_started", 1000, trial_id="a", attempt_id="2", slot_id="s", **one),
            _report(3000, "2", 100, train__images_per_s=0.025),
            _event("attempt_ended", 3000, trial_id="a", attempt_id="2", error=""),
            _event("slot_ended", 3000, slot_id="s", error=""),
        ]
    )
    found = ledger_of(record, BudgetConfig())
    assert 3600 * found.total.total == pytest.approx(4000)
    assert 3600 * found.trials["a"].train == pytest.approx(4000)
