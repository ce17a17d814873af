import math

import numpy as np
import pytest
from sweep_records import record_of, sweep_config, sweep_events

from orchestrator.protocol.point import Point
from orchestrator.report.statistics.matched import compare
from orchestrator.report.statistics.noise import pool_differences, pool_noise
from orchestrator.report.statistics.trials import TrialSummary, group_geometries, trial_summaries
from orchestrator.report.words.summary import summarize

METRIC = "probe/linear/mean"


def trial(
    name: str, seed: int, value: float, *, flops: float = 1.0, pace: float = 1.0, **fields
) -> TrialSummary:
    """A run of 1000 images with probes every 200, on a straight curve from 30."""
    curve = {images: 30 + (value - 30) * images / 1000 for images in range(0, 1001, 200)}
    return TrialSummary(
        trial_id=f"{name}-{seed}",
        name=name,
        point=Point({"x": name}),
        seed=seed,
        state="finished",
        value=value,
        images=1000,
        total_images=1000,
        flops_per_image=flops,
        **{"curve": curve, "share_by_images": {images: images * pace / 1000 for images in curve}} | fields,
    )


def draw(rng, means, *, num_seeds=3, sd=1.0, common_sd=0.0) -> list[TrialSummary]:
    common = common_sd * rng.standard_normal(num_seeds)
    return [
        trial(f"g{place}", seed, mean + common[seed] + sd * rng.standard_normal())
        for place, mean in enumerate(means)
        for seed in range(num_seeds)
    ]


def words(trials, **options):
    return {(r.first, r.second, r.budget): r for r in compare(group_geometries(trials), METRIC, **options)}


def test_one_configuration_under_other_seeds_is_called_different_in_at_most_5_of_100():
    rng = np.random.default_rng(0)
    different = 0
    for _ in range(100):
        (result,) = words(draw(rng, [60, 60]), budgets=("images",)).values()
        different += result.word == "beats"
    assert different <= 5


def test_all_pairs_of_equal_geometries_stay_together_in_95_of_100_sweeps():
    rng = np.random.default_rng(1)
    different = sum(
        any(result.word == "beats" for result in words(draw(rng, [60] * 6, common_sd=2.0)).values())
        for _ in range(200)
    )
    assert different / 200 <= 0.10 + 0.02  # 5 % for equal images and 5 % for the other two budgets


def test_a_clear_difference_is_called_and_its_interval_holds_the_truth():
    rng = np.random.default_rng(2)
    held = 0
    for _ in range(100):
        result = next(iter(words(draw(rng, [70, 60]), budgets=("images",)).values()))
        assert (result.word, result.winner) == ("beats", "x g0")
        held += result.interval.low <= 10 <= result.interval.high
    assert held >= 90


def test_a_difference_surely_within_a_point_is_tied():
    rng = np.random.default_rng(3)
    (result,) = words(draw(rng, [60, 60.1], num_seeds=8, sd=0.3), budgets=("images",)).values()
    assert result.word == "tied"
    assert "within 1 point" in result.sentence()


def test_what_cannot_be_said_says_how_many_seeds_would():
    trials = [trial("a", seed, 61 + d) for seed, d in enumerate((1.5, -1.5))]
    trials += [trial("b", seed, 59.5 + d) for seed, d in enumerate((-1.2, 1.3))]
    (result,) = words(trials, budgets=("images",)).values()
    assert result.word == "cannot say"
    assert result.more_seeds > 2
    assert f"{result.more_seeds} more seeds each would" in result.sentence()


def test_that_many_more_seeds_do_settle_it_when_the_gap_is_real():
    rng = np.random.default_rng(4)
    settled = 0
    for _ in range(40):
        (result,) = words(draw(rng, [61, 60], num_seeds=3), budgets=("images",)).values()
        more = 3 + (result.more_seeds or 0)
        later = words(draw(rng, [60 + abs(result.difference), 60], num_seeds=more), budgets=("images",))
        settled += next(iter(later.values())).word != "cannot say"
    assert settled >= 18  # the gap is where the power is about one half


def test_the_luck_that_geometries_share_under_a_seed_drops_out():
    rng = np.random.default_rng(5)
    values = rng.standard_normal((6, 4)) + 5.0 * rng.standard_normal(4)
    groups = [dict(enumerate(row)) for row in values.tolist()]
    paired, alone = pool_differences(groups), pool_noise(values.tolist())
    assert paired.paired
    assert paired.freedom == 15
    assert paired.seed_sd < 2.0 < alone.seed_sd


def test_seeds_that_differ_are_not_paired():
    noise = pool_differences([{0: 1.0, 1: 2.0}, {0: 1.0, 2: 2.0}, {0: 3.0, 1: 2.0}])
    assert not noise.paired
    assert noise.freedom == 3


def test_at_equal_flops_the_dearer_is_read_where_it_had_spent_as_much():
    trials = [trial("dear", seed, 70 + 0.2 * seed, flops=2.0) for seed in range(3)]
    trials += [trial("cheap", seed, 60 - 0.1 * seed, flops=1.0) for seed in range(3)]
    found = words(trials)
    images, flops = found["x dear", "x cheap", "images"], found["x dear", "x cheap", "FLOPs"]
    assert images.winner == "x dear"
    assert flops.at == 1000
    assert flops.winner == "x cheap"  # half-way the dear one stands at 50
    assert flops.difference == pytest.approx(50.1 - 59.9, abs=0.01)
    assert flops.cut == "x dear"


def test_device_hours_are_read_from_the_clock():
    trials = [trial("slow", seed, 70 + 0.2 * seed, pace=2.0) for seed in range(3)]
    trials += [trial("fast", seed, 60 - 0.1 * seed) for seed in range(3)]
    assert words(trials)["x slow", "x fast", "device hours"].winner == "x fast"


def test_without_probes_near_the_budget_nothing_is_made_up():
    sparse = {0: 30.0, 1000: 70.0}
    trials = [trial("dear", seed, 70.0 + seed, flops=3.0, curve=sparse) for seed in range(2)]
    trials += [trial("cheap", seed, 60.0 + seed) for seed in range(2)]
    result = words(trials)["x dear", "x cheap", "FLOPs"]
    assert result.word == "not measured"
    assert "probe.every_images" in result.sentence()


def test_unknown_flops_are_not_measured():
    trials = [trial(name, seed, 60.0 + seed, flops=math.nan) for name in "ab" for seed in range(2)]
    assert words(trials)["x a", "x b", "FLOPs"].word == "not measured"


def test_the_best_alone_is_compared_under_the_correction_for_all_pairs():
    rng = np.random.default_rng(6)
    trials = draw(rng, [60, 62, 61, 63])
    every, few = words(trials), words(trials, against_best=True)
    assert (len(every), len(few)) == (18, 9)
    assert all(every[key].interval == few[key].interval for key in few)


def test_what_a_trial_took_to_start_is_no_cost_of_its_geometry():
    events = sweep_events()
    slow = [
        {**event, "time_ms": event["time_ms"] - 60_000}
        if event["kind"] == "attempt_started" and event["trial_id"] == "t0000000"
        else event
        for event in events
    ]
    quick_one, slow_one = (trial_summaries(sweep_config(), record_of(found))[0] for found in (events, slow))
    assert slow_one.share.gpu == pytest.approx(quick_one.share.gpu)
    assert slow_one.share_by_images == pytest.approx(quick_one.share_by_images)
    assert slow_one.whole.gpu - quick_one.whole.gpu == pytest.approx(60 / 3600)
    quick, whole = (summarize(sweep_config(), record_of(found)) for found in (events, slow))
    assert whole.hours.gpu - quick.hours.gpu == pytest.approx(60 / 3600)
