"""Going on with a sweep: it must exist, and its configuration must still mean the same trials."""

from __future__ import annotations

import json
from typing import Any

from orchestrator.config import flatten, parse_config
from orchestrator.config.models import RunConfig
from orchestrator.errors import ConfigError, Fault, NotFoundError
from orchestrator.storage import Store
from orchestrator.sweep.journal import read_events
from orchestrator.sweep.record import SweepRecord, fold

MAY_CHANGE = (
    "storage.",
    "tracking.",
    "health.",
    "budget.",
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


def read_sweep(store: Store) -> SweepRecord:
    """The record of the sweep whose folder is `store`.

    Raises:
        NotFoundError: There is none.
    """
    record = fold(read_events(store))
    if not record.sweep_id:
        raise NotFoundError(f"{store.uri}: there is no sweep to go on with; check the id and storage.uri")
    return record


def check_same_sweep(config: RunConfig, record: SweepRecord) -> None:
    """A configuration plans the same trials as the one a sweep was started with, and perhaps more.

    Raises:
        ConfigError: It does not; every key that differs is named with both values.
    """
    started = flatten(parse_config(record.config_text, source=f"{record.sweep_id}/config.yaml"))
    given = flatten(config)
    faults = [
        Fault(
            key=key,
            rule=f"was {_text(started.get(key))} when {record.sweep_id} was started and cannot change in it",
            given=_text(given.get(key)),
            remedy="leave it as it was, or start a new sweep without --resume",
        )
        for key in sorted({*started, *given})
        if started.get(key) != given.get(key)
        and not (key == "train.images" and record.lengths)  # told below, by what it was extended to
        and not _may_change(config, key, started.get(key), given.get(key))
    ]
    faults += _shortened(config, record)
    if faults:
        raise ConfigError(faults)


def find_trial(record: SweepRecord, name: str) -> str:
    """The id of a trial that is named by its id or by its number.

    Raises:
        ConfigError: There is no such trial.
    """
    for trial in record.in_order():
        if name == trial.trial_id or (name.isdecimal() and int(name) == trial.index):
            return trial.trial_id
    known = ", ".join(f"{trial.index:03d} ({trial.trial_id})" for trial in record.in_order())
    raise ConfigError(
        [Fault(key="trial", rule=f"is not one of {record.sweep_id}", given=name, remedy=f"there are {known}")]
    )


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


def _may_change(config: RunConfig, key: str, before: Any, now: Any) -> bool:
    """Whether a sweep may go on with this value: what plans no trial, and longer or wider ones.

    A population cannot grow: its members are ranked together from the first image to the last.
    """
    can_grow = config.sweep.pbt is None
    if key.startswith(MAY_CHANGE):
        return can_grow or key != "sweep.num_trials"
    return can_grow and ((key == "train.images" and now >= before) or _is_wider(key, before, now))


def _is_wider(key: str, before: Any, now: Any) -> bool:
    """Whether a list of seeds or of an axis' choices holds everything that it held, and more.

    One seed, 0, is how `auto` begins.
    """
    if key == "sweep.seeds" and now == "auto":
        return bool(before == (0,))
    is_list = key in ("sweep.seeds", "sweep.points") or (
        key.startswith("sweep.space.") and (key.endswith(".choices") or ".also." in key)
    )
    if not is_list or before is None or now is None:
        return False
    kept = [_text(value) for value in now]
    return all(_text(value) in kept for value in before)


def _text(value: Any) -> str:
    return json.dumps(value, default=str)
