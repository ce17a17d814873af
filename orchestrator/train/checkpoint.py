"""Checkpoints: tensors in safetensors, everything else in JSON, a hash of every file in a manifest written last.

A checkpoint exists when its manifest does. Loading verifies every hash and falls back to the next older checkpoint
when one is damaged, so a kill at any moment costs at most one checkpoint interval. Nothing is unpickled.
"""

from __future__ import annotations

import hashlib
import json
import logging
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from safetensors.torch import load as load_safetensors
from safetensors.torch import save as save_safetensors

from orchestrator.errors import CheckpointError, NotFoundError
from orchestrator.storage import Store

_log = logging.getLogger(__name__)
_FORMAT = 1
_MANIFEST = "manifest.json"
_WEIGHTS = "state.safetensors"
_NAME = re.compile(r"step-(\d{10})")


@dataclass(frozen=True, kw_only=True)
class Checkpoint:
    """One verified checkpoint: `tensors` and `meta` as they were saved, `digest` the hash of all of it."""

    name: str
    step: int
    tensors: Mapping[str, torch.Tensor]
    meta: Mapping[str, Any]
    digest: str = ""


def checkpoint_name(step: int) -> str:
    """Folder name of the checkpoint after `step` steps; names sort by step."""
    return f"step-{step:010d}"


def save_checkpoint(
    store: Store,
    *,
    step: int,
    tensors: Mapping[str, torch.Tensor],
    meta: Mapping[str, Any],
    keep: int,
    pinned_step: int | None = None,
) -> str:
    """Write a checkpoint under `store` and delete older ones, so that `keep` are left up to this one, and a pinned one.

    `meta` must be JSON-able. Returns the checkpoint's name. The order of writes is weights, manifest, then deletion of
    the old, so that the newest complete checkpoint is never touched before its successor is complete. Later ones than
    this are damaged, or this one would not be written: they count for nothing and are written over when the run gets
    there. What a kill left of older ones, weights without a manifest, is deleted too.
    """
    name = checkpoint_name(step)
    weights = save_safetensors({key: value.detach().cpu().contiguous() for key, value in tensors.items()})
    manifest = {
        "format": _FORMAT,
        "step": step,
        "files": {_WEIGHTS: {"size_bytes": len(weights), "sha256": hashlib.sha256(weights).hexdigest()}},
        "meta": dict(meta),
    }
    manifest["sha256"] = _digest(manifest)
    text = json.dumps(manifest, sort_keys=True).encode()
    store.write(f"{name}/{_WEIGHTS}", weights)
    store.write(f"{name}/{_MANIFEST}", text)
    kept = [other for other in list_checkpoints(store) if other <= name][:keep]
    folders = {info.key.split("/")[0] for info in store.list()}
    for old in sorted(folder for folder in folders if _NAME.fullmatch(folder) and folder <= name):
        if old not in kept and (pinned_step is None or old != checkpoint_name(pinned_step)):
            _delete(store, old)
    return name


def list_checkpoints(store: Store) -> list[str]:
    """Names of the checkpoints that have a manifest, newest first."""
    names = {info.key.split("/")[0] for info in store.list() if info.key.endswith("/" + _MANIFEST)}
    return sorted((name for name in names if _NAME.fullmatch(name)), reverse=True)


def load_checkpoint(store: Store, name: str) -> Checkpoint:
    """Read and verify one checkpoint.

    Raises:
        CheckpointError: A file is missing, truncated or altered, or the format is unknown.
    """
    where = f"{store.uri}/{name}"
    try:
        manifest = json.loads(store.read(f"{name}/{_MANIFEST}"))
        weights = store.read(f"{name}/{_WEIGHTS}")
        expected = manifest["files"][_WEIGHTS]
        version, digest = manifest["format"], manifest.pop("sha256")
    except (NotFoundError, ValueError, KeyError, TypeError, AttributeError) as err:
        raise CheckpointError(f"{where}: incomplete or unreadable checkpoint ({err})") from err
    if version != _FORMAT:
        raise CheckpointError(f"{where}: checkpoint format {version}, this version reads {_FORMAT}")
    if digest != _digest(manifest) or hashlib.sha256(weights).hexdigest() != expected["sha256"]:
        raise CheckpointError(f"{where}: content differs from its recorded sha256; the checkpoint is damaged")
    return Checkpoint(
        name=name,
        step=manifest["step"],
        tensors=load_safetensors(weights),
        meta=manifest["meta"],
        digest=digest,
    )


def load_latest(store: Store) -> Checkpoint | None:
    """The newest checkpoint that verifies, or None when there is none; damaged ones are skipped with a warning."""
    for name in list_checkpoints(store):
        try:
            return load_checkpoint(store, name)
        except CheckpointError as err:
            _log.warning("skipping a damaged checkpoint, falling back to the one before it: %s", err)
    return None


def _digest(manifest: Mapping[str, Any]) -> str:
    body = {key: value for key, value in manifest.items() if key != "sha256"}
    return hashlib.sha256(json.dumps(body, sort_keys=True).encode()).hexdigest()


def _delete(store: Store, name: str) -> None:
    for file in (_MANIFEST, _WEIGHTS):
        try:
            store.delete(f"{name}/{file}")
        except NotFoundError:
            continue
