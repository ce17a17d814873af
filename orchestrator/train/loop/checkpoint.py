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

    `meta` must be JSON-able. Returns the checkpoint's name. The deletion of the old comes last, so that the newest
    complete checkpoint is never touched before its successor is complete. Later ones than this are damaged, or this one
    would not be written: they count for nothing and are written over when the run gets there. What a kill left of older
    ones, weights without a manifest, is deleted too.
    """
    name = write_checkpoint(store, step=step, tensors=tensors, meta=meta)
    kept = [other for other in list_checkpoints(store) if other <= name][:keep]
    for old in checkpoint_folders(store):
        if old <= name and old not in kept and (pinned_step is None or old != checkpoint_name(pinned_step)):
            delete_checkpoint(store, old)
    return name


def write_checkpoint(
    store: Store, *, step: int, tensors: Mapping[str, torch.Tensor], meta: Mapping[str, Any]
) -> str:
    """Write a checkpoint, its manifest last, and delete nothing; returns its name."""
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
    return name


def list_checkpoints(store: Store) -> list[str]:
    """Names of the checkpoints that have a manifest, newest first."""
    names = {info.key.split("/")[0] for info in store.list() if info.key.endswith("/" + _MANIFEST)}
    return sorted((name for name in names if _NAME.fullmatch(name)), reverse=True)


def checkpoint_folders(store: Store) -> list[str]:
    """Names of the checkpoints and of what a kill left of some, oldest first."""
    folders = {info.key.split("/")[0] for info in store.list()}
    return sorted(folder for folder in folders if _NAME.fullmatch(folder))


def load_checkpoint(store: Store, name: str) -> Checkpoint:
    """Read and verify one checkpoint.

    Raises:
        CheckpointError: A file is missing, truncated or altered, or the format is unknown.
    """
    manifest = _read_manifest(store, name)
    try:
        weights = store.read(f"{name}/{_WEIGHTS}")
        expected = manifest["files"][_WEIGHTS]["sha256"]
    except (NotFoundError, KeyError, TypeError) as err:
        raise _unreadable(store, name, err) from err
    if hashlib.sha256(weights).hexdigest() != expected:
        raise _altered(store, name)
    return Checkpoint(
        name=name,
        step=manifest["step"],
        tensors=load_safetensors(weights),
        meta=manifest["meta"],
        digest=manifest["sha256"],
    )


def read_meta(store: Store, name: str) -> Mapping[str, Any]:
    """What was saved beside the tensors of a checkpoint, which are not read.

    Raises:
        CheckpointError: The manifest is missing or altered, or the format is unknown.
    """
    meta: Mapping[str, Any] = _read_manifest(store, name)["meta"]
    return meta


def load_latest(store: Store) -> Checkpoint | None:
    """The newest checkpoint that verifies, or None when there is none; damaged ones are skipped with a warning."""
    for name in list_checkpoints(store):
        try:
            return load_checkpoint(store, name)
        except CheckpointError as err:
            _log.warning("skipping a damaged checkpoint, falling back to the one before it: %s", err)
    return None


def _read_manifest(store: Store, name: str) -> dict[str, Any]:
    try:
        manifest: dict[str, Any] = json.loads(store.read(f"{name}/{_MANIFEST}"))
        version, digest, body = manifest["format"], manifest["sha256"], _digest(manifest)
    except (NotFoundError, ValueError, KeyError, TypeError, AttributeError) as err:
        raise _unreadable(store, name, err) from err
    if version != _FORMAT:
        raise CheckpointError(
            f"{store.uri}/{name}: checkpoint format {version}, this version reads {_FORMAT}"
        )
    if digest != body:
        raise _altered(store, name)
    return manifest


def _unreadable(store: Store, name: str, err: Exception) -> CheckpointError:
    return CheckpointError(f"{store.uri}/{name}: incomplete or unreadable checkpoint ({err})")


def _altered(store: Store, name: str) -> CheckpointError:
    return CheckpointError(
        f"{store.uri}/{name}: content differs from its recorded sha256; the checkpoint is damaged"
    )


def _digest(manifest: Mapping[str, Any]) -> str:
    body = {key: value for key, value in manifest.items() if key != "sha256"}
    return hashlib.sha256(json.dumps(body, sort_keys=True).encode()).hexdigest()


def delete_checkpoint(store: Store, name: str) -> None:
    """Delete a checkpoint, its manifest first."""
    for file in (_MANIFEST, _WEIGHTS):
        try:
            store.delete(f"{name}/{file}")
        except NotFoundError:
            continue
