"""Ray Tune's part of a sweep: it proposes points, keeps a number of trials going, and hears their values.

Tune's trials are thin (`tune_trial`): the coordinator hands the work to the slots. Tune's own state is scratch; a sweep
that goes on proposes anew, and the coordinator answers at once for every trial that is done.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from ray import tune
from ray.tune.execution import class_cache
from ray.tune.search import Searcher

from orchestrator.config import first_seeds
from orchestrator.config.models import RunConfig
from orchestrator.protocol.events import Heard
from orchestrator.protocol.point import Point
from orchestrator.sweep.client import CoordinatorCalls
from orchestrator.sweep.core import SweepRecord, full_length_hours, next_seeds, unfinished_round
from orchestrator.sweep.search.known import Known, Pending
from orchestrator.sweep.search.tune_trial import METRIC, run_trial, trial_text
from orchestrator.sweep.space import SweepPlan, TrialPlan, make_trial, units_of

_TRIAL_RESTARTS = 3
_CREDENTIALS = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SECURITY_TOKEN", "AWS_SESSION_TOKEN")
"""Tune hands these to its actors as a runtime environment, which Ray writes to its logs; ours have no use for them."""


@dataclass(frozen=True, kw_only=True)
class Search:
    """Proposes the trials of one sweep; `concurrency` is the number of slots."""

    config: RunConfig
    plan: SweepPlan
    coordinator: CoordinatorCalls
    concurrency: int
    driver_share: dict[str, float]
    scratch_dir: str

    def run(self) -> None:
        """Propose every trial and wait until the coordinator has answered for all of them."""
        sweep = self.config.sweep
        is_auto = sweep.seeds == "auto"
        if self.plan.trials:
            self._listed(self.plan.trials, is_last=not is_auto)
        else:
            self._propose(sweep.num_trials or 1, is_last=not is_auto and len(sweep.seeds) == 1)
            repeats = [] if is_auto else self._repeats(self._record())
            if repeats:
                self._listed(repeats, is_last=True)
        if is_auto:
            self._add_seeds()
        self.coordinator.expect(0)

    def _record(self) -> SweepRecord:
        return self.coordinator.record()

    def _add_seeds(self) -> None:
        """Run the contenders under further seeds, round by round; a round that is journalled is not decided again."""
        asked: list[tuple[Point, int]] = []
        while not self.coordinator.is_stopping():
            record, before = self._record(), asked
            asked = unfinished_round(record)
            if asked and asked == before:
                return  # ran, and could not be brought to an end
            if not asked:
                decision = next_seeds(self.config, record)
                if not decision.trials:
                    if decision.reason not in record.notes:
                        self.coordinator.append(decision.event())
                    return
                self.coordinator.append(decision.event())
                asked = list(decision.trials)
            first = len(record.trials)
            trials = [
                make_trial(self.config, point, seed, first + place)
                for place, (point, seed) in enumerate(asked)
            ]
            self._listed(trials, is_last=False)

    def _listed(self, trials: Sequence[TrialPlan], *, is_last: bool) -> None:
        """Trials that are known beforehand; `is_last` says that no others follow.

        The coordinator queues them in their order before Tune asks for any, so that a sweep that goes on takes the same
        decisions in the same order, and no slot waits for Tune.
        """
        for trial in trials:
            self.coordinator.submit(trial.trial_id, trial.index, trial.point, trial.seed, trial.name)
        self.coordinator.expect(0 if is_last else None)
        listed = [trial_text(trial.point, trial.seed, trial.index) for trial in trials]
        self._fit(
            {"trial": tune.grid_search(listed)},
            num_samples=1,
            searcher=None,
            concurrency=min(len(trials), self.concurrency),
        )

    def _propose(self, num_trials: int, *, is_last: bool) -> None:
        """Optuna proposes points under the first seed, as Tune asks for them.

        Where the sweep goes on, it is told of the trials that are done, those that are not come first, and only the
        rest are new.
        """
        from orchestrator.sweep.search.optuna import Proposals  # Optuna, which other searches do without

        known = known_trials(self.config, self._record())
        num_left = num_trials - known.num_proposed + len(known.pending)
        if num_left <= 0:
            return
        searcher = Proposals(self.config, known)
        self.coordinator.expect(num_left if is_last else None)
        self._fit({}, num_samples=num_left, searcher=searcher, concurrency=self.concurrency)

    def _repeats(self, record: SweepRecord) -> list[TrialPlan]:
        """What the other seeds repeat: every finished trial of the first."""
        first, *others = first_seeds(self.config.sweep)
        found = [trial for trial in record.in_order() if trial.seed == first and trial.state == "finished"]
        return [
            make_trial(self.config, trial.point, seed, len(record.trials) + number)
            for number, (seed, trial) in enumerate((seed, trial) for seed in others for trial in found)
        ]

    def _fit(
        self, space: dict[str, Any], *, num_samples: int, searcher: Searcher | None, concurrency: int
    ) -> None:
        class_cache.ENV_VARS_TO_PROPAGATE.difference_update(_CREDENTIALS)
        trainable = tune.with_resources(
            tune.with_parameters(run_trial, config=self.config, coordinator=self.coordinator),
            self.driver_share,
        )
        tune.Tuner(
            trainable,
            param_space=space,
            tune_config=tune.TuneConfig(
                metric=METRIC,
                mode="max",
                num_samples=num_samples,
                search_alg=searcher,
                max_concurrent_trials=concurrency,
                reuse_actors=True,
                trial_dirname_creator=lambda trial: trial.trial_id,
            ),
            run_config=tune.RunConfig(
                name="tune",
                storage_path=self.scratch_dir,
                verbose=0,
                failure_config=tune.FailureConfig(max_failures=_TRIAL_RESTARTS),
            ),
        ).fit()


def known_trials(config: RunConfig, record: SweepRecord) -> Known:
    """What a search is told when it starts: an earlier sweep's trials, and its own where it goes on."""
    first = first_seeds(config.sweep)[0]
    heard = [] if record.warm_start is None else list(record.warm_start.heard)
    pending = []
    own = [trial for trial in record.in_order() if trial.seed == first]
    for trial in own:
        units = units_of(config.sweep.space, trial.point) or {}
        if not trial.done:
            pending.append(Pending(units=units, point=trial.point, seed=first, index=trial.index))
        elif units and trial.state != "failed":
            value = trial.metrics.get(config.sweep.metric, math.nan)
            heard.append(Heard(units=units, value=value, hours=full_length_hours(record, trial)))
    return Known(heard=heard, pending=pending, num_proposed=len(own))
