"""The rules that stop a run that no longer learns, as tables, and what the coordinator makes of them."""

import math
from pathlib import Path

import pytest

from orchestrator.config.models import HealthConfig, RunConfig, TrainConfig
from orchestrator.errors import ConfigError
from orchestrator.protocol.point import Point
from orchestrator.protocol.reports import Decision, Row, TrialReport
from orchestrator.sweep.core.health import judge_health
from orchestrator.sweep.journal.resume import trial_id_of
from orchestrator.sweep.run.coordinator import Coordinator

SETTINGS = HealthConfig(patience_reports=2, grace_fraction=0.2)
UNTRAINED = {"health/std": 0.4, "health/effective_rank": 20.0}


def _judge(*rows: dict[str, float]) -> str | None:
    """Rows at 100, 200, ... images of 1000, after the untrained encoder's."""
    history = {0: UNTRAINED, **{100 * (number + 1): row for number, row in enumerate(rows)}}
    return judge_health(history, total_images=1000, settings=SETTINGS)


GOOD = {"train/loss": 0.3, "health/std": 0.3, "health/effective_rank": 18.0, "health/target_movement": 1e-3}


@pytest.mark.parametrize(
    ("bad", "word"),
    [
        ({"train/loss": 4.0}, "predicting zeros"),
        ({"train/loss": 1.2}, "4.0 times its lowest"),
        ({"health/effective_rank": 1.4}, "effective_rank is 1.4"),
        ({"health/std": 0.01}, "std is 0.01"),
        ({"health/target_movement": 0.0, "train/momentum": 1.0}, "momentum 1"),
    ],
)
def test_what_lasts_is_named(bad: dict[str, float], word: str) -> None:
    lost = {**GOOD, **bad}
    said = _judge(GOOD, lost, lost)
    assert said is not None
    assert word in said
    assert "at 300 images" in said
    assert _judge(GOOD, lost, GOOD) is None
    assert _judge(lost, lost, GOOD, lost) is None


def test_nothing_but_a_loss_that_is_not_finite_stops_a_trial_in_its_grace_period() -> None:
    lost = {**GOOD, "health/effective_rank": 1.0}
    assert _judge(lost) is None
    assert "not finite" in str(_judge({**GOOD, "train/loss": math.nan}))


def test_a_healthy_trial_goes_on_and_rules_can_be_switched_off() -> None:
    assert _judge(*[GOOD] * 9) is None
    history = {0: UNTRAINED, 100: {"train/loss": math.inf}}
    off = HealthConfig(stop_unhealthy=False)
    assert judge_health(history, total_images=1000, settings=off) is None


def test_a_rising_loss_below_the_floor_is_no_divergence() -> None:
    assert _judge({"train/loss": 0.01}, {"train/loss": 0.2}, {"train/loss": 0.3}) is None


def test_a_method_whose_loss_has_another_scale_is_not_held_to_that_of_i_jepa() -> None:
    history = {0: UNTRAINED, **{images: {"train/loss": 25.0} for images in (300, 400)}}
    assert judge_health(history, total_images=1000, settings=SETTINGS)
    assert not judge_health(history, total_images=1000, settings=SETTINGS, has_scaled_targets=False)


def test_missing_metrics_judge_nothing() -> None:
    assert judge_health({}, total_images=10, settings=SETTINGS) is None
    assert _judge({"train/loss": 0.1}, {"train/loss": 0.1}) is None


def _report(coordinator: Coordinator, images: int, loss: float, attempt: str) -> Decision:
    row = Row(images=images, timestamp_ms=1, metrics={"train/loss": loss})
    return coordinator.report(TrialReport(trial_id="a", images=images, rows=(row,)), attempt)


def test_a_stop_is_journaled_with_its_reason_and_can_be_undone(tmp_path: Path) -> None:
    config = RunConfig(train=TrainConfig(images=1000, batch_size=10))
    coordinator = Coordinator(str(tmp_path), config)
    coordinator.submit("a", 0, Point({}), 0, "a")
    attempt = coordinator.next_trial("slot-0").attempt_id
    assert _report(coordinator, 100, math.nan, attempt).action == "stop"
    again = Coordinator(str(tmp_path), config)
    assert again.record().trials["a"].state == "stopped"
    assert "not finite" in again.record().trials["a"].reason
    again.revive("a")
    again.submit("a", 0, Point({}), 0, "a")
    attempt = again.next_trial("slot-0").attempt_id
    assert _report(again, 200, math.nan, attempt).action == "continue"


@pytest.mark.parametrize(("method", "action"), [("ijepa", "stop"), ("vicreg", "continue")])
def test_a_trial_is_judged_by_the_loss_of_its_own_method(tmp_path: Path, method: str, action: str) -> None:
    """The sweep's own method is I-JEPA, that of its points is another."""
    coordinator = Coordinator(str(tmp_path), RunConfig(train=TrainConfig(images=1000, batch_size=10)))
    coordinator.submit("a", 0, Point({"objective.name": method}), 0, "a")
    attempt = coordinator.next_trial("slot-0").attempt_id
    assert _report(coordinator, 200, 25.0, attempt).action == "continue"
    assert _report(coordinator, 300, 24.0, attempt).action == action


def test_a_trial_is_found_by_id_and_by_number(tmp_path: Path) -> None:
    coordinator = Coordinator(str(tmp_path), RunConfig())
    coordinator.plan_trial("tabc", 7, Point({}), 0, "a")
    assert trial_id_of(coordinator.record(), "tabc") == trial_id_of(coordinator.record(), "007") == "tabc"
    with pytest.raises(ConfigError, match="there are 007"):
        trial_id_of(coordinator.record(), "8")
