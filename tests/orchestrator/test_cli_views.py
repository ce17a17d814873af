"""What a person who watches a sweep is told, and when."""

import io
import time

import pytest

from orchestrator.cli.views import PlainView, news
from orchestrator.config import default_config
from orchestrator.protocol.events import (
    BudgetExhausted,
    Entry,
    Event,
    SeedsAdded,
    SeedsSettled,
    SweepExtended,
    SweepResumed,
    TrialEnded,
    TrialRevived,
    WarmStarted,
)
from orchestrator.protocol.point import Point
from orchestrator.sweep.core.record import SweepRecord, TrialRecord

TRIALS = {
    "t0": TrialRecord(trial_id="t0", index=0, point=Point({}), seed=0, name="one", state="finished"),
    "t1": TrialRecord(trial_id="t1", index=1, point=Point({}), seed=0, name="two"),
}
RECORD = SweepRecord(sweep_id="s", trials=TRIALS)


@pytest.mark.parametrize(
    ("event", "told"),
    [
        (SeedsAdded(trials=(), contenders=(), dropped=(), reason="3 are tied"), "3 are tied"),
        (SeedsSettled(reason="the best stands alone"), "the best stands alone"),
        (BudgetExhausted(reason="2 hours are spent"), "2 hours are spent"),
        (WarmStarted(source="s0", heard=(), notes=("3 of 4 trials of s0",)), "note: 3 of 4 trials of s0"),
        (SweepExtended(before_images=640, train_images=1280), "1,280 images, 640 before"),
        (TrialRevived(trial_id="t1"), "trial 001 (two) is revived"),
        (SweepResumed(), "s goes on: 1 of 2 trials done"),
    ],
)
def test_what_is_decided_about_a_sweep_is_told(event: Event, told: str) -> None:
    (line,) = news(event, RECORD)
    assert told in line


def test_the_log_of_a_sweep_that_goes_on_does_not_tell_its_past_again() -> None:
    stream = io.StringIO()
    view = PlainView(default_config(), stream)
    past, now = TrialEnded(trial_id="t0", state="finished", reason=""), SweepResumed()
    for number, (event, after_s) in enumerate(((past, -60), (now, 1))):
        time_ms = int(1000 * (time.time() + after_s))
        view.on_event(Entry(sequence=number, time_ms=time_ms, event=event), RECORD)
    (line,) = stream.getvalue().splitlines()
    assert "goes on" in line
