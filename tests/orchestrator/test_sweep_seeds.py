"""More seeds for contenders alone: who contends, what is asked for, and that a sweep that goes on repeats it."""

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest

from orchestrator.config import apply_overrides, default_config, parse_config
from orchestrator.config.models import RunConfig
from orchestrator.errors import ConfigError
from orchestrator.storage import MemoryStore
from orchestrator.sweep.core.record import SweepRecord
from orchestrator.sweep.core.seeds import fit_effects, next_seeds
from orchestrator.sweep.foresight.plan import most_trials, num_trials
from orchestrator.sweep.foresight.simulate import SimulatedCluster, simulate
from orchestrator.sweep.space.points import TrialPlan, plan_sweep

HEIGHTS = (40.0, 60.0, 59.5, 41.0, 42.0, 59.8)


class Noisy:
    """Curves that end at a height of the geometry's own, plus the luck of its seed and a little of its own."""

    def __init__(self, heights: tuple[float, ...] = HEIGHTS, noise_sd: float = 1.0) -> None:
        self.heights, self.noise_sd = heights, noise_sd

    def metrics(self, trial: TrialPlan, images: int) -> Mapping[str, float]:
        place = trial.point["masks.num_target_blocks"] - 1
        luck = np.random.default_rng((trial.seed, 7)).normal(0, 3)
        own = np.random.default_rng((trial.seed, place, 8)).normal(0, self.noise_sd)
        return {"probe/linear/mean": self.heights[place] + luck + own, "train/loss": 0.3}

    def seconds(self, trial: TrialPlan, start_images: int, end_images: int) -> float:
        return (end_images - start_images) / 50


def _config(**values: Any) -> RunConfig:
    space = {"masks.num_target_blocks": {"choices": list(range(1, len(HEIGHTS) + 1))}}
    named = {key.replace("__", "."): value for key, value in values.items()}
    base = {"train.images": 9_000, "train.batch_size": 100, "sweep.space": space, "sweep.seeds": "auto"}
    return apply_overrides(default_config(), {**base, **named})


def _run(config: RunConfig, curves: Noisy | None = None, store: MemoryStore | None = None) -> SweepRecord:
    cluster = SimulatedCluster(num_slots=2, start_s=0.0)
    return simulate(config, plan_sweep(config).trials, curves or Noisy(), cluster, store=store)


def _seeds_by_geometry(record: SweepRecord) -> dict[int, list[int]]:
    found: dict[int, list[int]] = {}
    for trial in record.in_order():
        found.setdefault(trial.point["masks.num_target_blocks"], []).append(trial.seed)
    return found


def test_only_those_that_cannot_be_told_from_the_best_get_more_seeds() -> None:
    record = _run(_config(sweep__max_seeds=4))
    seeds = _seeds_by_geometry(record)
    assert [len(seeds[place]) for place in (1, 4, 5)] == [1, 1, 1]
    assert [seeds[place] for place in (2, 3, 6)] == [[0, 1, 2, 3]] * 3
    assert "all have sweep.max_seeds (4): no more seeds" in record.notes[-1]


def test_a_best_that_stands_alone_gets_no_second_seed() -> None:
    record = _run(_config(), Noisy((40.0, 80.0, 41.0, 42.0, 43.0, 44.0)))
    assert len(record.trials) == len(HEIGHTS)
    assert record.notes == [
        "the best stands alone: a run's seed noise is 2.8 points (assumed: no geometry has two seeds); no more seeds"
    ]


def test_a_geometry_that_has_dropped_out_stays_out_and_each_round_says_why() -> None:
    record = _run(_config(sweep__max_seeds=3), Noisy(noise_sd=6.0))
    dropped = [name for each in record.seed_rounds for name in each.dropped]
    assert len(dropped) == len(set(dropped))
    repeated = {each.point["masks.num_target_blocks"] for each in record.seed_rounds[-1].trials}
    assert not repeated & {record.trials[name].point["masks.num_target_blocks"] for name in dropped}
    assert "of 6 contenders are within" in record.seed_rounds[0].reason


def test_a_sweep_that_goes_on_after_a_round_runs_the_trials_that_the_round_named() -> None:
    config, store = _config(sweep__max_seeds=3), MemoryStore()
    whole = _run(config, store=store)
    cut = next(e for e in range(200) if '"seeds_added"' in store.read(f"journal/{e:08d}.json").decode())
    half = MemoryStore()
    for number in range(cut + 1):
        half.write(f"journal/{number:08d}.json", store.read(f"journal/{number:08d}.json"))
    again = _run(config, store=half)
    assert [each.trials for each in again.seed_rounds] == [each.trials for each in whole.seed_rounds]
    assert set(again.trials) == set(whole.trials)


def test_the_luck_of_a_seed_that_two_geometries_share_does_not_decide_between_them() -> None:
    effects = fit_effects([{0: 50.0, 1: 60.0, 2: 55.0}, {0: 49.0, 1: 59.0, 2: 54.0}, {0: 45.0}])
    assert effects.means_G - effects.means_G[0] == pytest.approx([0.0, -1.0, -5.0], abs=1e-9)
    assert effects.freedom == 4  # two measured degrees, filled up with the assumed spread
    assert effects.noise_sd == pytest.approx(2.8 / math.sqrt(2))


def test_halving_does_not_stop_what_repeats_a_contender() -> None:
    asha = {"first_rung_images": 3_000, "reduction_factor": 3}
    heights = (59.5, 60.0, 40.0, 41.0, 42.0, 43.0)
    record = _run(_config(sweep__asha=asha, sweep__max_seeds=3), Noisy(heights, noise_sd=0.0))
    repeats = [trial for trial in record.in_order() if trial.seed > 0]
    assert repeats
    assert {trial.state for trial in repeats} == {"finished"}
    assert not any(trial.rungs for trial in repeats)


def test_a_sweep_in_which_nothing_finished_asks_for_no_seeds() -> None:
    decision = next_seeds(_config(), SweepRecord())
    assert (decision.trials, decision.reason) == ((), "no trial finished: no more seeds")


def test_a_plan_counts_the_least_and_the_most() -> None:
    config = _config(sweep__max_seeds=4)
    plan = plan_sweep(config)
    assert (num_trials(config, plan), most_trials(config, plan)) == (6, 24)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("seeds: automatic", "sweep.seeds: must be a list, or one of 'auto'"),
        ("max_seeds: 1", "sweep.max_seeds: must be at least 2"),
    ],
)
def test_seeds_that_make_no_sense_are_refused(text: str, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        parse_config(f"sweep: {{{text}}}")
