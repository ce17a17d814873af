"""What the searches propose: evenly, repeatably, and better once they have heard of other points."""

from typing import Any

import numpy as np
import pytest

from orchestrator.config import apply_overrides, default_config
from orchestrator.config.models import RunConfig
from orchestrator.sweep.search.optuna import Proposals
from orchestrator.sweep.search.tune_trial import METRIC
from orchestrator.sweep.space.points import plan_sweep


def _config(search: str, num_trials: int) -> RunConfig:
    space = {
        "optimizer.weight_decay": {"uniform": [0.0, 1.0]},
        "optimizer.final_weight_decay": {"uniform": [0.0, 1.0]},
    }
    return apply_overrides(
        default_config(),
        {
            "sweep.search": search,
            "sweep.num_trials": num_trials,
            "sweep.space": space,
            "sweep.search_seed": 3,
        },
    )


def _points(search: str, num_trials: int) -> list[tuple[float, ...]]:
    return [tuple(trial.point.values()) for trial in plan_sweep(_config(search, num_trials)).trials]


def test_sobol_points_fill_every_cell_that_random_ones_leave_empty() -> None:
    cells = {(int(4 * x), int(4 * y)) for x, y in _points("sobol", 16)}
    assert len(cells) == 16
    assert len({(int(4 * x), int(4 * y)) for x, y in _points("random", 16)}) < 16


@pytest.mark.parametrize("search", ["random", "sobol"])
def test_what_was_drawn_stays_when_an_axis_becomes_wider(search: str) -> None:
    def drawn(high: float, num_trials: int) -> RunConfig:
        space = {"optimizer.learning_rate": {"log_uniform": [1e-4, high]}}
        changes = {"sweep.search": search, "sweep.num_trials": num_trials, "sweep.space": space}
        return apply_overrides(default_config(), changes)

    narrow, wide = drawn(1e-3, 4), drawn(1e-1, 12)
    first = [trial.trial_id for trial in plan_sweep(narrow).trials]
    trials = plan_sweep(wide, [narrow]).trials
    assert [trial.trial_id for trial in trials[:4]] == first
    rates = [trial.point["optimizer.learning_rate"] for trial in trials]
    assert len(rates) == 12
    assert max(rates[:4]) <= 1e-3 < max(rates[4:])
    again = plan_sweep(wide, [narrow, wide]).trials
    assert [trial.trial_id for trial in again] == [trial.trial_id for trial in trials]


def test_a_longer_sobol_search_continues_a_shorter_one() -> None:
    assert _points("sobol", 20)[:8] == _points("sobol", 8)


def _search(search: str, rounds: int) -> list[dict[str, Any]]:
    """Propose, and tell the height of a hill at (0.7, 0.2)."""
    searcher, points = Proposals(_config(search, rounds)), []
    for number in range(rounds):
        point = searcher.suggest(str(number))
        x, y = point.values()
        height = 1 - (x - 0.7) ** 2 - (y - 0.2) ** 2
        searcher.on_trial_complete(str(number), {METRIC: height})
        points.append({**point, "height": height})
    return points


@pytest.mark.filterwarnings("ignore::Warning")  # Optuna's Gaussian process is marked as experimental
@pytest.mark.parametrize("search", ["optuna", "gp"])
def test_a_proposing_search_climbs_and_repeats_itself(search: str) -> None:
    points = _search(search, 24)
    first, last = (np.mean([point["height"] for point in part]) for part in (points[:8], points[-8:]))
    assert last > first
    assert _search(search, 6) == points[:6]
