"""What a proposing search asks for next: Optuna behind Tune's interface, told of what is known already.

A range is searched as a fraction from 0 to 1 and a list of choices by index, so that the axes of a sweep mean the same
in every search; an axis that does not exist at a point is not asked for there. With `sweep.trade_off` two values are
told, accuracy and hours, and the sampler looks for what nothing beats on both.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Mapping
from typing import Any

import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution
from optuna.samplers import BaseSampler, GPSampler, TPESampler
from ray.tune.search import Searcher

from orchestrator.config.models import Axis, Choice, RunConfig
from orchestrator.config.space import build_point, dimensions, second_dimension
from orchestrator.sweep.search.known import Known, Units
from orchestrator.sweep.search.tune_trial import HOURS, METRIC, trial_text


class Proposals(Searcher):  # type: ignore[misc]  # Tune has no types
    """Proposes points, as Tune asks for them."""

    def __init__(self, config: RunConfig, known: Known | None = None) -> None:
        known = known or Known()
        super().__init__(metric=METRIC, mode="max")
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        self._space = config.sweep.space
        self._is_trade_off = config.sweep.trade_off is not None
        directions = ["maximize", "minimize"] if self._is_trade_off else ["maximize"]
        self._study = optuna.create_study(directions=directions, sampler=_sampler(config, known.num_proposed))
        self._asked: dict[str, optuna.Trial] = {}
        self._pending = deque(known.pending)
        self._rerun: dict[str, Units] = {}
        for heard in known.heard:
            self._add(heard.units, self._values({METRIC: heard.value, HOURS: heard.hours}))

    def suggest(self, trial_id: str) -> dict[str, Any]:
        """The next trial: one that was asked for before, or a new point."""
        if self._pending:
            before = self._pending.popleft()
            self._rerun[trial_id] = before.units
            return {"trial": trial_text(before.point, before.seed, before.index)}
        trial = self._study.ask()
        units: dict[str, float] = {}

        def draw(key: str, axis: Axis) -> Any:
            if isinstance(axis, Choice):
                units[key] = trial.suggest_categorical(key, list(range(len(axis.choices))))
                return axis.choices[int(units[key])]
            for name in (key, *([f"{key}.{second}"] if (second := second_dimension(axis)) else [])):
                units[name] = trial.suggest_float(name, 0.0, 1.0)
            return units[key]  # no axis waits for a range's value

        build_point(_without_ties(self._space), draw)
        self._asked[trial_id] = trial
        return dict(units)

    def on_trial_complete(
        self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False
    ) -> None:
        """Hear how a trial came out."""
        values = self._values(result or {})
        if trial_id in self._rerun:
            self._add(self._rerun.pop(trial_id), values)
        elif trial_id in self._asked:
            state = None if values else optuna.trial.TrialState.FAIL
            self._study.tell(self._asked.pop(trial_id), values, state=state)

    def save(self, checkpoint_path: str) -> None:
        """Nothing is kept in Tune's state: the journal knows every trial."""

    def restore(self, checkpoint_path: str) -> None:
        """Nothing is read from Tune's state."""

    def _values(self, result: Mapping[str, float]) -> list[float] | None:
        names = (METRIC, HOURS) if self._is_trade_off else (METRIC,)
        values = [float(result.get(name, math.nan)) for name in names]
        return values if all(map(math.isfinite, values)) else None

    def _add(self, units: Units, values: list[float] | None) -> None:
        if values is not None:
            kinds = _distributions(self._space)
            trial = optuna.trial.create_trial(
                params=dict(units), distributions={name: kinds[name] for name in units}, values=values
            )
            self._study.add_trial(trial)


def _sampler(config: RunConfig, num_proposed: int) -> BaseSampler:
    """A tree-structured Parzen estimator, or a Gaussian process, which leaves conditional axes to the former."""
    seed = (config.sweep.search_seed + num_proposed) % 2**32
    tpe = TPESampler(seed=seed)
    if config.sweep.search != "gp":
        return tpe
    return GPSampler(seed=seed, independent_sampler=tpe, warn_independent_sampling=False)


def _distributions(space: Mapping[str, Axis]) -> dict[str, BaseDistribution]:
    found: dict[str, BaseDistribution] = {name: FloatDistribution(0.0, 1.0) for name in dimensions(space)}
    for key, axis in space.items():
        if isinstance(axis, Choice):
            found[key] = CategoricalDistribution(list(range(len(axis.choices))))
    return found


def _without_ties(space: Mapping[str, Axis]) -> dict[str, Axis]:
    return {key: axis.model_copy(update={"also": {}}) for key, axis in space.items()}
