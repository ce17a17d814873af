"""`sweep.warm_start`: what the trials of an earlier sweep tell the search of a new one, and which of them say nothing.

A trial counts when it finished, when its point lies in the new space, and when everything else that decides its result
is as in the new sweep. What does not count is said with its reason and left out.
"""

from __future__ import annotations

import functools
import json
import math
from collections import Counter
from collections.abc import Callable, Sequence

from orchestrator.config import flatten, parse_config, searched_keys
from orchestrator.config.models import RunConfig
from orchestrator.errors import ConfigError, Fault, NotFoundError
from orchestrator.protocol.events import Heard, WarmStarted
from orchestrator.protocol.point import Point
from orchestrator.storage import open_store
from orchestrator.sweep.core import SweepRecord, TrialRecord, full_length_hours
from orchestrator.sweep.journal import deciding_differences, read_sweep
from orchestrator.sweep.space import config_at, units_of
from orchestrator.text import counted

_NAMED = 3


def read_warm_start(config: RunConfig) -> WarmStarted | None:
    """Read the sweep that `sweep.warm_start` names; None where it names none.

    Raises:
        ConfigError: There is no such sweep.
        StorageError: Its folder cannot be read.
    """
    name = config.sweep.warm_start
    if name is None:
        return None
    uri = name if "/" in name else f"{config.storage.uri.rstrip('/')}/{name}"
    try:
        record = read_sweep(open_store(uri, config.storage))
    except NotFoundError as err:
        raise ConfigError(
            [
                Fault(
                    key="sweep.warm_start",
                    rule="is not a sweep",
                    given=name,
                    remedy=f"there is none at {uri}; give an id that `orchestrator ls` lists, or a sweep's folder",
                )
            ]
        ) from err
    return take_over(config, record)


def take_over(config: RunConfig, earlier: SweepRecord) -> WarmStarted:
    """What a new sweep can learn from the trials of an earlier one."""
    started = parse_config(earlier.config_text, source=f"{earlier.sweep_id}/config.yaml")
    config_of = functools.cache(functools.partial(config_at, started))  # the seeds of a point ask for one
    groups: dict[Point, list[TrialRecord]] = {}
    refused: Counter[str] = Counter()
    for trial in earlier.in_order():
        if reason := _refusal(config, config_of, trial):
            refused[reason] += 1
        else:
            groups.setdefault(trial.point, []).append(trial)
    heard = [
        found for group in groups.values() if (found := _heard(config, config_of, earlier, group)) is not None
    ]
    num_trials = sum(map(len, groups.values()))
    notes = [
        f"warm start: {num_trials} of {counted(len(earlier.trials), 'trial')} of {earlier.sweep_id} "
        f"at {counted(len(heard), 'point')}"
    ]
    notes += [
        f"warm start: {count} {'trial is' if count == 1 else 'trials are'} left out: {reason}"
        for reason, count in refused.most_common()
    ]
    return WarmStarted(source=earlier.sweep_id, heard=tuple(heard), notes=tuple(notes))


def _refusal(config: RunConfig, config_of: Callable[[Point], RunConfig], trial: TrialRecord) -> str:
    """Why a trial says nothing to the new sweep; empty when it does."""
    metric = config.sweep.metric
    if trial.state != "finished":
        return f"{'stopped early' if trial.state == 'stopped' else trial.state}"
    if trial.takeovers:
        return "its settings changed in mid-training (sweep.pbt)"
    if trial.was_extended:
        return "it was extended, so its schedule is not that of a trial of its length"
    if not math.isfinite(trial.metrics.get(metric, math.nan)):
        return f"{metric} was not measured"
    try:
        before = config_of(trial.point)
    except ConfigError:
        return "its point no longer keeps every rule"
    if _units_of(config, before, trial) is None:
        return "its point lies outside the space"
    return _other_difference(config, before)


def _units_of(config: RunConfig, before: RunConfig, trial: TrialRecord) -> dict[str, float | int] | None:
    """Where a trial stands in the new space; an axis that its sweep did not search has the value of its settings."""
    settings = {**flatten(before), **trial.point}
    there = {key: settings[key] for key in searched_keys(config.sweep) if key in settings}
    return units_of(config.sweep.space, Point(there))


def _other_difference(config: RunConfig, before: RunConfig) -> str:
    """The settings, of those that the new sweep does not search, by which a result differs.

    `before` is the trial's; of what its sweep searched the value is not told, so that its trials have one reason.
    """
    space = config.sweep.space
    searched = {other for key, axis in space.items() for other in (key, *axis.also)}
    # A section that an axis of the space rebuilds, such as another method's settings, is compared there.
    rebuilt = ("objective.",) if "objective.name" in space else ()
    different = {
        key: values
        for key, values in deciding_differences(before, config).items()
        if key not in searched and not key.startswith(rebuilt)
    }
    if not different:
        return ""
    varied = searched_keys(before.sweep)
    named = [
        f"{key} was not {json.dumps(now, default=str)}"
        if key in varied
        else f"{key} was {json.dumps(was, default=str)}, now {json.dumps(now, default=str)}"
        for key, (was, now) in list(different.items())[:_NAMED]
    ]
    more = f" and {len(different) - _NAMED} more" if len(different) > _NAMED else ""
    return "; ".join(named) + more


def _heard(
    config: RunConfig,
    config_of: Callable[[Point], RunConfig],
    earlier: SweepRecord,
    trials: Sequence[TrialRecord],
) -> Heard | None:
    units = _units_of(config, config_of(trials[0].point), trials[0])
    if units is None:
        return None
    values = [trial.metrics[config.sweep.metric] for trial in trials]
    hours = [full_length_hours(earlier, trial) for trial in trials]
    return Heard(units=units, value=sum(values) / len(values), hours=sum(hours) / len(hours))
