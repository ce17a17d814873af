"""The scripts that are recorded: one function each, which plays a sweep and returns what was said and answered."""

from __future__ import annotations

from collections.abc import Callable

from .play import Session
from .scripts_earlier import old_budget_goes_on, old_halving_goes_on, old_optuna_goes_on
from .scripts_events import (
    budget_enlarged,
    budget_of_stopping_halving,
    cancel,
    dead_workers,
    late_and_missing_evaluations,
    lost_answers,
    pause_at_a_rung,
    resize,
    revive,
    unhealthy,
)
from .scripts_listed import (
    changed_configuration,
    demo_grid,
    extended_longer_and_wider,
    halving_stopping_brackets,
    plans,
    promotion_killed_at_a_rung,
    promotion_two_seeds,
    seeds_auto,
    three_seeds,
    wider_range_of_a_drawn_space,
)
from .scripts_proposing import (
    gp_trade_off,
    optuna_halving_and_seeds,
    optuna_killed,
    population,
    population_killed,
    warm_start,
)

SCENARIOS: dict[str, Callable[[], Session]] = {
    scenario.__name__: scenario
    for scenario in (
        demo_grid,
        three_seeds,
        seeds_auto,
        halving_stopping_brackets,
        promotion_two_seeds,
        promotion_killed_at_a_rung,
        population,
        population_killed,
        optuna_killed,
        optuna_halving_and_seeds,
        gp_trade_off,
        extended_longer_and_wider,
        wider_range_of_a_drawn_space,
        changed_configuration,
        revive,
        cancel,
        pause_at_a_rung,
        budget_enlarged,
        budget_of_stopping_halving,
        resize,
        dead_workers,
        late_and_missing_evaluations,
        unhealthy,
        lost_answers,
        warm_start,
        old_halving_goes_on,
        old_budget_goes_on,
        old_optuna_goes_on,
        plans,
    )
}
