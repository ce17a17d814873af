"""The best checkpoint of a run: the weights at its highest probe after warm-up, kept beside the newest checkpoints.

It lies in `best/` among them and holds the objective's weights alone. No run goes on from it: going on is from the
newest. It is written whenever a probe is the highest so far, whatever the cadence of the others. Its figure is the
maximum of several, so it reads high; nothing is ranked by it.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from jepa_core.schedules import whole_steps
from orchestrator.config.models import RunConfig
from orchestrator.errors import CheckpointError, NotFoundError
from orchestrator.protocol.reports import BestCheckpoint
from orchestrator.storage import Store
from orchestrator.train.loop.checkpoint import (
    Checkpoint,
    checkpoint_folders,
    checkpoint_name,
    delete_checkpoint,
    list_checkpoints,
    load_checkpoint,
    load_latest,
    read_meta,
    write_checkpoint,
)

if TYPE_CHECKING:
    from orchestrator.train.evaluate import Weights

_log = logging.getLogger(__name__)
BEST, LAST = "best", "last"
_FOLDER = "best"
_NONE = "no best one is kept: no probe since warm-up, an earlier version, or damage"


@dataclass(frozen=True, kw_only=True)
class TakenCheckpoint:
    """A checkpoint to be handed on; `best` is set where it is the best one, `note` says why it is another."""

    name: str
    checkpoint: Checkpoint
    best: BestCheckpoint | None = None
    note: str = ""


def first_best_step(warmup_fraction: float, total_steps: int) -> int:
    """The first step whose probe counts: the last of the learning rate's warm-up; the run's end always counts."""
    return min(total_steps, max(1, whole_steps(warmup_fraction, total_steps)))


def find_best(store: Store) -> BestCheckpoint | None:
    """The best of a trial's checkpoints, given the store of all of them; None when none is kept or readable.

    A kill between the writing of a better one and the deletion of the one before leaves two.
    """
    folder = store.child(_FOLDER)
    found = []
    for name in list_checkpoints(folder):
        try:
            meta = read_meta(folder, name)
            found.append(
                BestCheckpoint(
                    name=f"{_FOLDER}/{name}", images=int(meta["images"]), value=float(meta["value"])
                )
            )
        except (CheckpointError, KeyError, TypeError, ValueError) as err:
            _log.warning("skipping a damaged best checkpoint, %s/%s: %s", folder.uri, name, err)
    return max(found, key=_rank, default=None)


def take_checkpoint(store: Store, wanted: str | None = None) -> TakenCheckpoint:
    """A trial's checkpoint: `best`, `last`, one by its name, or by default the best, else the newest.

    Raises:
        NotFoundError: There is no such checkpoint, or none that verifies.
        CheckpointError: The one that is asked for is damaged.
    """
    if wanted == LAST:
        return _newest(store)
    best = find_best(store)
    if wanted is None and best is not None:
        try:
            return _best(store, best)
        except CheckpointError as err:
            return _newest(store, note=f"the best one cannot be read ({err})")
    if wanted is None:
        return _newest(store, note=_NONE)
    if wanted == BEST and best is None:
        raise NotFoundError(
            f"no best checkpoint in {store.uri}: its trial was not probed since the learning rate's warm-up, was run "
            f"by an earlier version, or it is damaged; take `{LAST}`"
        )
    if best is not None and wanted in (BEST, best.name):
        return _best(store, best)
    if wanted not in (known := list_checkpoints(store)):
        known += [] if best is None else [best.name]
        raise NotFoundError(
            f"no checkpoint {wanted!r} in {store.uri}; there are: {', '.join(known) or 'none'}"
        )
    return TakenCheckpoint(name=wanted, checkpoint=load_checkpoint(store, wanted))


def _best(store: Store, best: BestCheckpoint) -> TakenCheckpoint:
    return TakenCheckpoint(name=best.name, checkpoint=load_checkpoint(store, best.name), best=best)


def _newest(store: Store, *, note: str = "") -> TakenCheckpoint:
    found = load_latest(store)
    if found is None:
        raise NotFoundError(f"no checkpoint in {store.uri} that verifies")
    return TakenCheckpoint(name=found.name, checkpoint=found, note=note)


class BestKeeper:
    """Keeps the best checkpoint of one run; used on rank 0 alone, but for what needs no store."""

    def __init__(self, store: Store, config: RunConfig, total_steps: int) -> None:
        self._all, self._store = store, store.child(_FOLDER)
        self._metric, self._batch_size = config.sweep.metric, config.train.batch_size
        self._first_step = first_best_step(config.optimizer.warmup_fraction, total_steps)
        self.held: BestCheckpoint | None = None

    def find(self) -> None:
        """Look for what an earlier attempt kept."""
        self.held = find_best(self._all)

    def is_better(self, step: int, metrics: Mapping[str, float]) -> bool:
        """Whether a probe after `step` steps is the highest so far; of equal ones the later is."""
        value = metrics.get(self._metric, math.nan)
        if step < self._first_step or not math.isfinite(value):
            return False
        return self.held is None or _rank(self._at(step, value)) > _rank(self.held)

    def keep(self, step: int, metrics: Mapping[str, float], weights: Weights) -> None:
        """Write the objective's weights after `step` steps; the one before is deleted after that."""
        best = self._at(step, metrics[self._metric])
        name = write_checkpoint(
            self._store,
            step=step,
            tensors={f"objective/{key}": torch.from_numpy(value) for key, value in weights.items()},
            meta={"images": best.images, "value": best.value, "metric": self._metric},
        )
        self.held = best
        self._delete(but=name)

    def forget(self, *, up_to_step: int) -> None:
        """Delete what was kept up to a step: the run goes on from there with another one's weights."""
        self._delete(up_to=checkpoint_name(up_to_step))
        self.find()

    def _delete(self, *, but: str = "", up_to: str | None = None) -> None:
        for name in checkpoint_folders(self._store):
            if name != but and (up_to is None or name <= up_to):
                delete_checkpoint(self._store, name)

    def _at(self, step: int, value: float) -> BestCheckpoint:
        name = f"{_FOLDER}/{checkpoint_name(step)}"
        return BestCheckpoint(name=name, images=step * self._batch_size, value=value)


def _rank(best: BestCheckpoint) -> tuple[float, int]:
    return best.value, best.images
