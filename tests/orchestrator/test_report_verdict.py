import math

import numpy as np
import pytest
from examples import examples
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.protocol.hours import ShareHours
from orchestrator.protocol.intervals import Interval
from orchestrator.protocol.point import Point
from orchestrator.report.statistics.noise import (
    accuracy_around,
    difference_around,
    difference_error,
    pool_noise,
)
from orchestrator.report.statistics.trials import TrialSummary, group_geometries
from orchestrator.report.words.sentences import answers, cost_text, verdict_lines
from orchestrator.report.words.verdict import judge
from orchestrator.sweep.core.noise import critical_range

METRIC = "probe/linear/mean"


def trial(scale: float, seed: int, value: float, **fields) -> TrialSummary:
    defaults = {
        "trial_id": f"{scale}-{seed}",
        "name": f"scale {scale}",
        "point": Point({"masks.target_scale": scale}),
        "state": "finished",
        "images": 1000,
        "total_images": 1000,
        "untrained_value": 30.0,
        "accuracies": {"class": value},
        "untrained": {"class": 30.0},
        "pixels": {"class": 50.0},
        "curve": {1000: value},
    }
    return TrialSummary(seed=seed, value=value, **(defaults | fields))


def sweep(rng, means, num_seeds: int, sd: float) -> list[TrialSummary]:
    return [
        trial(0.1 * (index + 1), seed, mean + sd * rng.standard_normal())
        for index, mean in enumerate(means)
        for seed in range(num_seeds)
    ]


@pytest.mark.parametrize(("num_geometries", "num_seeds"), [(2, 2), (2, 4), (6, 2), (9, 3)])
def test_equal_geometries_are_called_different_in_one_of_twenty_sweeps(num_geometries, num_seeds):
    rng, num_sweeps = np.random.default_rng(0), 1000
    different = sum(
        not all(
            each.tied for each in judge(sweep(rng, [60] * num_geometries, num_seeds, 1.3), METRIC).ranking
        )
        for _ in range(num_sweeps)
    )
    assert different / num_sweeps <= 0.05 + 2.5 * math.sqrt(0.05 * 0.95 / num_sweeps)
    assert different / num_sweeps >= 0.01  # and not by calling everything tied


def test_known_hits_keep_the_rate_of_false_differences():
    rng, different = np.random.default_rng(7), 0
    for _ in range(200):
        easiness = rng.beta(2, 2, size=500)
        trials = []
        for index in range(4):
            for seed in range(2):
                hits = rng.random(500) < np.clip(easiness + 0.01 * rng.standard_normal(), 0, 1)
                trials.append(trial(float(index), seed, 100 * hits.mean(), hits={"class": hits}))
        different += not all(result.tied for result in judge(trials, METRIC).ranking)
    assert different <= 18


def test_single_seeds_that_differ_by_seed_noise_alone_are_seldom_called_different():
    rng = np.random.default_rng(1)
    verdicts = [judge(sweep(rng, [60] * 9, 1, math.sqrt(2)), METRIC) for _ in range(300)]
    assert sum(verdict.outcome == "winner" for verdict in verdicts) <= 15


def test_a_clear_winner_is_crowned():
    rng = np.random.default_rng(2)
    verdicts = [judge(sweep(rng, [60, 62, 75, 61, 58, 63], 2, 1.0), METRIC) for _ in range(50)]
    assert all(verdict.outcome == "winner" for verdict in verdicts)
    assert all(verdict.best.point["masks.target_scale"] == pytest.approx(0.3) for verdict in verdicts)


def test_the_true_best_is_in_the_tied_set():
    rng = np.random.default_rng(3)
    held = 0
    for _ in range(300):
        verdict = judge(sweep(rng, [60, 61, 62, 61.5], 2, 1.0), METRIC)
        held += any(result.name == "target scale 0.3" for result in verdict.tied)
    assert held >= 285


def test_intervals_cover_the_true_mean():
    rng = np.random.default_rng(4)
    covered = [
        result.interval.low <= 60 <= result.interval.high
        for _ in range(300)
        for result in judge(sweep(rng, [60, 60, 60], 3, 1.0), METRIC).ranking
    ]
    assert 0.92 <= np.mean(covered) <= 0.98


def test_a_winner_that_is_no_better_than_its_untrained_encoder_is_not_one():
    trials = [
        trial(0.1, seed, 60 + 0.1 * seed, untrained_value=60.0, untrained={"class": 60.0})
        for seed in range(3)
    ]
    trials += [trial(0.2, seed, 40 + 0.1 * seed) for seed in range(3)]
    assert judge(trials, METRIC).outcome == "no_gain"


def test_geometries_that_learn_nothing_are_seldom_said_to_gain():
    rng, num_sweeps, gained = np.random.default_rng(8), 400, 0
    for _ in range(num_sweeps):
        untrained = 60 + rng.standard_normal(2)
        trials = [
            trial(0.1 * index, seed, 60 + rng.standard_normal(), untrained_value=untrained[seed])
            for index in range(8)
            for seed in range(2)
        ]
        gained += judge(trials, METRIC).outcome != "no_gain"
    assert gained / num_sweeps <= 0.05 + 2.5 * math.sqrt(0.05 * 0.95 / num_sweeps)


def test_a_stopped_trial_is_never_ranked_but_compared_where_it_stopped():
    stopped = trial(0.5, 0, 99.0, state="stopped", images=300, curve={0: 30.0, 300: 99.0}, reason="rung")
    finished = [
        trial(0.1, 0, 70.0, curve={300: 40.0, 1000: 70.0}),
        trial(0.2, 0, 60.0, curve={300: 45.0, 1000: 60.0}),
    ]
    verdict = judge([stopped, *finished], METRIC)
    assert [result.name for result in verdict.ranking] == ["target scale 0.1", "target scale 0.2"]
    (result,) = verdict.stopped
    assert (result.value, result.rivals_low, result.rivals_high) == (99.0, 40.0, 45.0)


def test_the_cheapest_of_the_tied_costs_least_and_not_the_cheapest_of_all():
    trials = [
        trial(0.1, seed, value + (-1) ** (seed + place) * 0.1, share=ShareHours(gpu=cost))
        for place, (value, cost) in enumerate(((70, 3.0), (69.95, 2.0), (50, 1.0)))
        for seed in range(3)
    ]
    trials = [
        TrialSummary(**{**vars(each), "point": Point({"x": each.share.gpu}), "name": str(each.share.gpu)})
        for each in trials
    ]
    verdict = judge(trials, METRIC)
    assert {result.name for result in verdict.tied} == {"x 3", "x 2"}
    assert verdict.cheapest.name == "x 2"


def test_labels_stand_to_the_baselines_beyond_noise():
    labels = {"class": 90.0, "count": 50.5, "distance": 20.0}
    baseline = {"class": 50.0, "count": 50.0, "distance": 50.0}
    trials = [trial(0.1, 0, 70, accuracies=labels, untrained=baseline, pixels={"class": 95.0})]
    result = judge(trials, METRIC).ranking[0]
    standing = {name: label.against_untrained for name, label in result.labels.items()}
    assert standing == {"class": "above", "count": "level", "distance": "below"}
    assert result.labels["count"].against_pixels == "unknown"
    assert result.beats_untrained == ("class",)


def test_nothing_finished_gives_no_verdict():
    verdict = judge([trial(0.1, 0, math.nan), trial(0.2, 0, 50.0, state="failed")], METRIC)
    assert verdict.outcome == "none"
    assert verdict.best is None
    assert verdict.cheapest is None


def test_one_geometry_alone_is_not_a_winner():
    assert judge([trial(0.1, 0, 70.0)], METRIC).outcome == "alone"


def test_paired_hits_shrink_the_error_of_a_difference():
    rng = np.random.default_rng(5)
    shared = rng.random(2000) < 0.6
    flipped = shared ^ (rng.random(2000) < 0.02)
    with_hits = [
        trial(0.1, 0, 60.0, hits={"class": shared}),
        trial(0.2, 0, 60.0, hits={"class": flipped}),
    ]
    without = [trial(0.1, 0, 60.0), trial(0.2, 0, 60.0)]
    noise = pool_noise([[1.0], [2.0]])

    def error(trials):
        first, second = group_geometries(trials)
        return difference_error(first, second, noise, METRIC)

    assert 3.96 < error(with_hits) < 4.0 < error(without)


def test_seeds_of_one_point_are_one_geometry_whatever_the_order_of_its_axes():
    trials = [
        trial(0, 0, 60.0, point=Point({"a": 1, "b": (1, 2)})),
        trial(0, 1, 62.0, point=Point({"b": (1, 2), "a": 1})),
    ]
    (geometry,) = group_geometries(trials)
    assert geometry.mean == 61.0


@examples(50)
@given(
    values=st.lists(st.lists(st.floats(0, 100), min_size=1, max_size=3), min_size=1, max_size=5),
)
def test_a_ranking_is_ordered_and_its_best_is_tied_with_itself(values):
    trials = [
        trial(float(index), seed, value)
        for index, group in enumerate(values)
        for seed, value in enumerate(group)
    ]
    verdict = judge(trials, METRIC)
    means = [result.mean for result in verdict.ranking]
    assert means == sorted(means, reverse=True)
    assert verdict.best in verdict.tied
    assert verdict.cheapest in verdict.tied
    assert (verdict.outcome == "winner") <= (len(verdict.tied) == 1)
    assert all(result.interval.low <= result.mean <= result.interval.high for result in verdict.ranking)


def test_telling_more_geometries_apart_takes_more():
    factors = [critical_range(count, 20) for count in (2, 3, 6, 12)]
    assert factors == sorted(factors)
    assert factors[0] == pytest.approx(2.086, abs=1e-3)  # Student's t, 20 degrees of freedom
    assert factors[2] == pytest.approx(4.445 / math.sqrt(2), abs=2e-3)  # the published range for 6 and 20


@pytest.mark.parametrize(
    ("hours", "text"),
    [(0.001, "3.6 CPU core seconds"), (0.01, "0.6 CPU core minutes"), (2.0, "2.00 CPU core hours")],
)
def test_costs_are_told_in_a_unit_in_which_they_can_be_read(hours, text):
    assert cost_text(ShareHours(cpu_core=hours)) == text


@pytest.mark.parametrize(
    ("mean", "expected"), [(99.0, (96.0, 100.0)), (1.0, (0.0, 4.0)), (50.0, (47.0, 53.0))]
)
def test_an_interval_of_an_accuracy_is_cut_to_what_an_accuracy_can_be(mean, expected):
    found = accuracy_around(mean, 3.0)
    assert ((found.low, found.high), found.level) == (expected, 0.95)


def test_an_interval_of_a_difference_is_cut_and_an_unknown_bound_stays():
    assert difference_around(10.0, 150.0) == Interval(low=-100.0, high=100.0, level=0.95)
    assert difference_around(10.0, math.inf, 0.975) == Interval(low=-math.inf, high=math.inf, level=0.975)


@pytest.mark.parametrize("value", [100.0, 0.0])
def test_the_intervals_of_a_verdict_stay_within_0_and_100(value):
    verdict = judge([trial(scale, 0, value) for scale in (0.1, 0.2)], METRIC)
    assert all(
        0.0 <= each.interval.low <= each.mean <= each.interval.high <= 100.0 for each in verdict.ranking
    )
    assert all(each.interval.low < each.interval.high for each in verdict.ranking)


def solved(**baselines) -> list[TrialSummary]:
    fields = {"untrained": {"class": 100.0}, "pixels": {"class": 100.0}, "untrained_value": 100.0} | baselines
    return [trial(scale, 0, 100.0, **fields) for scale in (0.1, 0.2)]


def test_labels_that_need_no_learning_are_said_first_and_no_advice_to_train_longer_follows():
    lines = verdict_lines(judge(solved(), METRIC))
    assert lines[0] == "The labels are told apart without learning: this data cannot rank geometries."
    assert "Label class needs no learning: the untrained encoder and raw pixels have 100.0 % on it." in lines
    assert lines[-1].startswith("Rank by a label that an untrained encoder and raw pixels do not solve")
    assert "train longer" not in " ".join(lines)


@pytest.mark.parametrize(
    ("baselines", "who"),
    [
        ({"untrained": {"class": 40.0}}, "raw pixels have"),
        ({"pixels": {"class": 40.0}}, "the untrained encoder has"),
    ],
)
def test_one_baseline_at_100_is_enough_and_is_named(baselines, who):
    assert f"Label class needs no learning: {who} 100.0 % on it." in verdict_lines(
        judge(solved(**baselines), METRIC)
    )


def test_one_label_of_two_that_needs_no_learning_leaves_a_ranking():
    fields = {name: {"class": 100.0, "count": 40.0} for name in ("accuracies", "untrained", "pixels")}
    verdict = judge([trial(scale, 0, 70.0, **fields) for scale in (0.1, 0.2)], METRIC)
    assert list(verdict.solved) == ["class"]
    assert not verdict.ranks_nothing
    assert not any("cannot rank" in line for line in answers(verdict)["Which mask"])
