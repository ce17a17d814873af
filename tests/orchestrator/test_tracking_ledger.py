import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.tracking.ledger import AttemptCost, Cost, cost_by_trial, phase_seconds, total_cost

seconds = st.floats(min_value=0, max_value=1e6)


@st.composite
def attempts(draw):
    start = draw(seconds)
    seen = start + draw(seconds)
    return AttemptCost(
        attempt_id=draw(st.uuids()).hex,
        trial_id=draw(st.sampled_from(["a", "b", "c"])),
        num_gpus=draw(st.sampled_from([0.0, 0.25, 1.0, 8.0])),
        num_cpus=draw(st.sampled_from([0.5, 1.0, 16.0])),
        started_s=start,
        last_seen_s=seen,
        ended_s=draw(st.sampled_from([None, seen, seen + 10])),
        completed=draw(st.booleans()),
        kept_until_s=draw(st.one_of(st.none(), seconds)),
    )


def test_retries_and_waste_are_counted():
    first = AttemptCost(
        attempt_id="1", trial_id="a", num_gpus=2, num_cpus=4, started_s=0, last_seen_s=1800, kept_until_s=900
    )
    second = AttemptCost(
        attempt_id="2",
        trial_id="a",
        num_gpus=2,
        num_cpus=4,
        started_s=1900,
        last_seen_s=3000,
        ended_s=3700,
        completed=True,
    )
    cost = total_cost([first, second])
    assert cost.gpu_hours == pytest.approx(2 * (0.5 + 0.5))
    assert cost.cpu_core_hours == pytest.approx(4.0)
    assert cost.wasted_gpu_hours == pytest.approx(0.5)
    assert cost.num_attempts == 2


@given(st.lists(attempts(), max_size=8))
def test_trials_sum_to_the_sweep_and_waste_is_a_part(items):
    total = total_cost(items)
    parts = sum(cost_by_trial(items).values(), Cost())
    assert parts.gpu_hours == pytest.approx(total.gpu_hours)
    assert parts.num_attempts == total.num_attempts
    assert 0 <= total.wasted_gpu_hours <= total.gpu_hours + 1e-9
    assert 0 <= total.wasted_cpu_core_hours <= total.cpu_core_hours + 1e-9


@given(st.lists(attempts(), max_size=5))
def test_listing_an_attempt_twice_counts_it_once(items):
    assert total_cost(items + items) == total_cost(items)


def test_a_clock_that_went_back_charges_nothing():
    attempt = AttemptCost(attempt_id="1", trial_id="a", num_gpus=1, num_cpus=1, started_s=100, last_seen_s=50)
    assert total_cost([attempt]).gpu_hours == 0


def test_phases_are_summed():
    attempt = AttemptCost(
        attempt_id="1",
        trial_id="a",
        num_gpus=1,
        num_cpus=1,
        started_s=0,
        last_seen_s=9,
        phase_seconds={"train": 6, "probe": 3},
    )
    assert phase_seconds([attempt, attempt]) == {"train": 12, "probe": 6}
