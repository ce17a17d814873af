"""Going on from another trial's weights: the checkpoint that a member of a population takes over.

The other one keeps that checkpoint (`pinned`) until the generation after it is decided, so the member may be late and
may be killed and come again. Whose weights they are was decided elsewhere (`sweep.core.generations`).
"""

from __future__ import annotations

from collections.abc import Callable

from orchestrator.config.models import RunConfig
from orchestrator.errors import CheckpointError
from orchestrator.protocol.jobs import Inheritance, checkpoints_uri
from orchestrator.storage import Store, open_store
from orchestrator.train.distributed import Rank
from orchestrator.train.loop.checkpoint import Checkpoint, checkpoint_name, load_checkpoint, load_latest


def load_inherited(inherits: Inheritance[RunConfig], run_uri: str, rank: Rank) -> Checkpoint:
    """The checkpoint that a run goes on from, the same on every rank. Every rank must call it.

    Raises:
        CheckpointError: It is missing or damaged; no other one would do.
    """
    store = open_store(checkpoints_uri(run_uri, inherits.trial_id), inherits.config.storage)
    found = _agreed(lambda: _load_or_none(store, checkpoint_name(inherits.step)), rank)
    if found is None:
        name = checkpoint_name(inherits.step)
        raise CheckpointError(f"{store.uri}/{name}: the checkpoint that is to be taken over cannot be read")
    return found


def find_checkpoint(store: Store, rank: Rank) -> Checkpoint | None:
    """The newest checkpoint that verifies, the same on every rank, or None. Every rank must call it."""
    return _agreed(lambda: load_latest(store), rank)


def _agreed(load: Callable[[], Checkpoint | None], rank: Rank) -> Checkpoint | None:
    """What every rank loads, the same on all.

    Each rank reads it for itself, which for a large model is far cheaper than sending it through the process group;
    where some rank sees another one, as on a node's own disk, rank 0 sends its own.
    """
    found = load()
    seen = rank.gather(None if found is None else (found.name, found.digest))
    if all(each == seen[0] for each in seen):
        return found
    return rank.broadcast(found if rank.index == 0 else None)


def _load_or_none(store: Store, name: str) -> Checkpoint | None:
    try:
        return load_checkpoint(store, name)
    except CheckpointError:
        return None
