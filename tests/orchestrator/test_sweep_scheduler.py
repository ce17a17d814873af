"""Asynchronous successive halving against a plain reading of the algorithm."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.config.models import AshaConfig
from orchestrator.sweep.core.rungs import bracket_of, decide_at_rung, rungs_images

ASHA = AshaConfig(first_rung_images=1000, reduction_factor=3)


def test_rungs_grow_by_the_reduction_factor_and_stay_below_the_end() -> None:
    assert rungs_images(ASHA, 30_000) == (1000, 3000, 9000, 27_000)
    assert rungs_images(ASHA, 27_000) == (1000, 3000, 9000)
    assert rungs_images(ASHA, 1000) == ()
    assert rungs_images(None, 30_000) == ()


@pytest.mark.parametrize(
    ("value", "recorded", "action"),
    [
        (50.0, {}, "continue"),
        (50.0, {"a": 60.0}, "stop"),
        (61.0, {"a": 60.0}, "continue"),
        (60.0, {"a": 60.0, "b": 60.0}, "continue"),
        (55.0, {"a": 60.0, "b": 50.0, "c": 40.0, "d": 30.0, "e": 20.0}, "continue"),
        (45.0, {"a": 60.0, "b": 50.0, "c": 40.0, "d": 30.0, "e": 20.0}, "stop"),
        (1.0, {"a": math.nan}, "continue"),
    ],
)
def test_the_best_third_goes_on(value: float, recorded: dict[str, float], action: str) -> None:
    decision = decide_at_rung(ASHA, rung=1000, trial_id="x", value=value, recorded=recorded)
    assert decision.action == action


def test_nan_stops_and_says_so() -> None:
    decision = decide_at_rung(ASHA, rung=1000, trial_id="x", value=math.nan, recorded={})
    assert decision.action == "stop"
    assert "NaN" in decision.reason


@given(st.lists(st.floats(0, 100), min_size=1, max_size=40), st.integers(2, 5))
def test_the_best_so_far_is_never_stopped_and_few_of_a_falling_sequence_go_on(
    values: list[float], factor: int
) -> None:
    asha = AshaConfig(first_rung_images=1, reduction_factor=factor)
    recorded: dict[str, float] = {}
    for number, value in enumerate(values):
        decision = decide_at_rung(asha, rung=1, trial_id=str(number), value=value, recorded=recorded)
        recorded[str(number)] = value
        better = sum(other > value for other in recorded.values())
        assert (decision.action == "continue") == (better < max(1, len(recorded) // factor))


def test_a_later_bracket_leaves_out_the_first_rungs() -> None:
    asha = AshaConfig(first_rung_images=1000, reduction_factor=3, brackets=3)
    assert rungs_images(asha, 30_000, bracket=2) == (9000, 27_000)
    assert [bracket_of(asha, index) for index in range(5)] == [0, 1, 2, 0, 1]
    assert bracket_of(None, 7) == 0
