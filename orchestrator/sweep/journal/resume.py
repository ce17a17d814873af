"""Going on with a sweep: it must exist, and its configuration must still mean the same trials."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence

from orchestrator.config import flatten, parse_config
from orchestrator.config.models import RunConfig
from orchestrator.errors import ConfigError, Fault, NotFoundError
from orchestrator.protocol.point import value_key
from orchestrator.storage import Store
from orchestrator.sweep.core import STOPPED, SweepRecord, TrialRecord, fold_events
from orchestrator.sweep.journal.folders import LOCATIONS, Runs, absolute_uris
from orchestrator.sweep.journal.log import read_events

MAY_CHANGE = (
    "storage.",
    "tracking.",
    "health.",
    "budget.",
    "data.allow_loss",
    "data.cache_dir",
    "data.cache_size_gb",
    "data.loader_threads",
    "train.num_workers",
    "train.min_workers",
    "train.gpus_per_worker",
    "train.cpus_per_worker",
    "train.threads_per_worker",
    "train.max_failures",
    "train.keep_checkpoints",
    "train.checkpoint_every_images",
    "train.report_every_images",
    "probe.beside",
    "probe.max_failures",
    "sweep.max_concurrent_trials",
    "sweep.num_trials",
    "sweep.max_seeds",
)
"""Keys that say where and how a sweep runs, or how long, and not what its trials are."""


NOT_ABOUT_RESULTS = ("name", "sweep.", "train.seed", "probe.every_images", *MAY_CHANGE)
"""Keys by which two sweeps may differ though their trials at one point come to the same."""

_RANGES = (".uniform", ".log_uniform", ".int_uniform", ".center", ".center_ratio", ".width", ".spread")
"""The bounds of an axis that is a range."""


def read_sweep(store: Store) -> SweepRecord:
    """The record of the sweep whose folder is `store`.

    Raises:
        NotFoundError: There is none.
    """
    record = fold_events(read_events(store))
    if not record.sweep_id:
        raise NotFoundError(f"{store.uri}: there is no sweep to go on with; check the id and storage.uri")
    return record


def check_same_sweep(config: RunConfig, record: SweepRecord) -> None:
    """A configuration plans the same trials as the one that a sweep last went on under, and perhaps more.

    Raises:
        ConfigError: It does not; every key that differs is named with both values.
    """
    before_config = parse_config(record.config_text, source=f"{record.sweep_id}/config.yaml")
    before = flatten(before_config)
    given = flatten(config)
    resume = Runs.of(config.storage).command("resume", record.sweep_id)
    faults = [
        Fault(
            key=key,
            rule=f"is {json.dumps(before.get(key), default=str)} in {record.sweep_id} and cannot change in it",
            given=json.dumps(given.get(key), default=str),
            remedy=f"leave it as it is (`{resume}` does), or start a new sweep",
        )
        for key in sorted({*before, *given})
        if before.get(key) != given.get(key)
        and not _is_same_path(key, before_config, config, record.folder)
        and not (key == "train.images" and record.lengths)  # told below, by what it was extended to
        and not _may_change(config, key, before.get(key), given.get(key))
    ]
    faults += _shortened(config, record)
    if faults:
        raise ConfigError(faults)


def earlier_configs(record: SweepRecord) -> tuple[RunConfig, ...]:
    """The configurations under which a sweep was driven so far, in order, the newest among them."""
    texts = (*record.earlier_config_texts, record.config_text)
    return tuple(parse_config(text, source=f"{record.sweep_id}/journal") for text in texts)


def check_something_left(config: RunConfig, record: SweepRecord) -> None:
    """A sweep that was cancelled goes on only where there is more to do than when it was.

    Raises:
        ConfigError: It would end again at once.
    """
    if record.state != "cancelled":
        return
    before = parse_config(record.config_text, source=f"{record.sweep_id}/config.yaml")
    if all(
        key.startswith("storage.") or _is_same_path(key, before, config, record.folder)
        for key in differing_keys(before, config)
    ):
        raise ConfigError(
            f"{record.sweep_id} was cancelled, for good: nothing is left to go on with; let single trials go on with "
            "--revive TRIAL, or give it more to do with `orchestrator extend`"
        )


def differing_keys(before: RunConfig, now: RunConfig) -> list[str]:
    """The dotted keys of every setting that differs."""
    first, second = flatten(before), flatten(now)
    return [key for key in sorted({*first, *second}) if first.get(key) != second.get(key)]


def _is_same_path(key: str, before: RunConfig, now: RunConfig, folder: str) -> bool:
    """Whether a setting names the same file or folder in both, relative in one and absolute in the other."""
    if not folder:
        return False
    was, is_now = (
        absolute_uris(config, place).get(key) or flatten(config).get(key)
        for config, place in ((before, folder), (now, os.getcwd()))
    )
    return key in LOCATIONS and bool(was == is_now)


def deciding_differences(before: RunConfig, now: RunConfig) -> dict[str, tuple[object, object]]:
    """The settings that decide what a trial comes to and differ, by dotted key: (before, now)."""
    first, second = flatten(before), flatten(now)
    return {
        key: (first.get(key), second.get(key))
        for key in differing_keys(before, now)
        if not key.startswith(NOT_ABOUT_RESULTS)
    }


def trial_id_of(record: SweepRecord, name: str) -> str:
    """The id of a trial that is named by its id or by its number.

    Raises:
        ConfigError: There is no such trial.
    """
    trial = record.trial_named(name)
    if trial is None:
        raise _no_such_trial(record.in_order(), name, f"is not one of {record.sweep_id}")
    return trial.trial_id


def stopped_trial_id_of(record: SweepRecord, name: str) -> str:
    """The id of a trial whose stop can be undone, named by its id or by its number.

    Raises:
        ConfigError: There is no such trial, or it was neither stopped nor has it failed.
    """
    trial = record.trials[trial_id_of(record, name)]
    if trial.state in STOPPED:
        return trial.trial_id
    others = [each for each in record.in_order() if each.state in STOPPED]
    raise _no_such_trial(others, name, f"is {trial.state}; one that was stopped or has failed can be revived")


def _no_such_trial(there: Sequence[TrialRecord], name: str, rule: str) -> ConfigError:
    known = ", ".join(f"{trial.index:03d} ({trial.trial_id})" for trial in there)
    remedy = f"there are {known}" if known else "there is none"
    return ConfigError([Fault(key="trial", rule=rule, given=name, remedy=remedy)])


def _shortened(config: RunConfig, record: SweepRecord) -> list[Fault]:
    """A sweep that was extended cannot go on with fewer images than it was extended to."""
    planned = max(record.lengths, default=0)
    if config.train.images >= planned:
        return []
    return [
        Fault(
            key="train.images",
            rule=f"{record.sweep_id} was extended to {planned:,} images and cannot become shorter",
            given=str(config.train.images),
            remedy=f"give {planned} or more",
        )
    ]


def _may_change(config: RunConfig, key: str, before: object, now: object) -> bool:
    """Whether a sweep may go on with this value: what plans no trial, and longer or wider ones.

    A population cannot grow: its members are ranked together from the first image to the last.
    """
    can_grow = config.sweep.pbt is None
    if key.startswith(MAY_CHANGE):
        return can_grow or key != "sweep.num_trials"
    is_longer = key == "train.images" and isinstance(before, int) and isinstance(now, int) and now >= before
    return can_grow and (is_longer or _is_wider(key, before, now))


def _is_wider(key: str, before: object, now: object) -> bool:
    """Whether seeds, an axis' choices or its range hold everything that they held, and more.

    One seed, 0, is how `auto` begins.
    """
    if key == "sweep.seeds" and now == "auto":
        return bool(before == (0,))
    if key.startswith("sweep.space.") and key.endswith(_RANGES):
        if not (isinstance(before, tuple) and isinstance(now, tuple)):
            return False
        return bool(now[0] <= before[0] and before[1] <= now[1])
    is_list = key in ("sweep.seeds", "sweep.points") or (
        key.startswith("sweep.space.") and (key.endswith(".choices") or ".also." in key)
    )
    if not (is_list and isinstance(before, (tuple, list)) and isinstance(now, (tuple, list))):
        return False
    kept = [value_key(value) for value in now]
    return all(value_key(value) in kept for value in before)
