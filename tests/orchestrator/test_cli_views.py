"""What a person who watches a sweep is told, and when."""

import io
import time
from typing import Any

import pytest

from orchestrator.cli.views import PlainView, news
from orchestrator.config import default_config
from orchestrator.sweep.core.record import SweepRecord, TrialRecord

TRIALS = {
    "t0": TrialRecord(trial_id="t0", index=0, point={}, seed=0, name="one", state="finished"),
    "t1": TrialRecord(trial_id="t1", index=1, point={}, seed=0, name="two"),
}
RECORD = SweepRecord(sweep_id="s", trials=TRIALS)


@pytest.mark.parametrize(
    ("event", "told"),
    [
        ({"kind": "seeds_added", "reason": "3 are tied"}, "3 are tied"),
        ({"kind": "seeds_settled", "reason": "the best stands alone"}, "the best stands alone"),
        ({"kind": "budget_exhausted", "reason": "2 hours are spent"}, "2 hours are spent"),
        ({"kind": "warm_started", "notes": ["3 of 4 trials of s0"]}, "note: 3 of 4 trials of s0"),
        ({"kind": "sweep_extended", "before_images": 640, "train_images": 1280}, "1,280 images, 640 before"),
        ({"kind": "trial_revived", "trial_id": "t1"}, "trial 001 (two) is revived"),
        ({"kind": "sweep_resumed"}, "s goes on: 1 of 2 trials done"),
    ],
)
def test_what_is_decided_about_a_sweep_is_told(event: dict[str, Any], told: str) -> None:
    (line,) = news(event, RECORD)
    assert told in line


def test_the_log_of_a_sweep_that_goes_on_does_not_tell_its_past_again() -> None:
    stream = io.StringIO()
    view = PlainView(default_config(), stream)
    past = {"kind": "trial_ended", "trial_id": "t0", "time_ms": 1000 * (time.time() - 60)}
    now = {"kind": "sweep_resumed", "time_ms": 1000 * (time.time() + 1)}
    for event in (past, now):
        view.on_event(event, RECORD)
    (line,) = stream.getvalue().splitlines()
    assert "goes on" in line
