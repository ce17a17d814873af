"""Checks of the machine and of what a configuration needs, each with its remedy."""

from __future__ import annotations

import os
import platform
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

from orchestrator.config import RunConfig
from orchestrator.errors import DataError, OrchestratorError, StorageError, TrackingError

_MIN_FREE_GB = 5.0


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One check: what was looked at, how it stands, and the exit code it would mean (0 when fine)."""

    name: str
    text: str
    exit_code: int = 0
    warning: bool = False

    @property
    def mark(self) -> str:
        """`ok`, `warn` or `FAIL`."""
        return "FAIL" if self.exit_code else "warn" if self.warning else "ok  "

    def to_json(self) -> dict[str, object]:
        """As a JSON-able dictionary."""
        return {"name": self.name, "status": self.mark.strip().lower(), "text": self.text}


def examine(config: RunConfig) -> list[Finding]:
    """Run every check; none of them spends anything or leaves anything behind."""
    checks: tuple[Callable[[RunConfig], Iterator[Finding]], ...] = (
        _python,
        _devices,
        _ray,
        _disk,
        _storage,
        _data,
        _tracking,
    )
    findings: list[Finding] = []
    for check in checks:
        try:
            findings += check(config)
        except OrchestratorError as err:
            findings.append(Finding(name=check.__name__.strip("_"), text=str(err), exit_code=err.exit_code))
    return findings


def _python(config: RunConfig) -> Iterator[Finding]:
    names = ("torch", "timm", "ray", "mlflow", "webdataset")
    packages = ", ".join(f"{name} {version(name)}" for name in names)
    yield Finding(name="python", text=f"{platform.python_version()}; {packages}")


def _devices(config: RunConfig) -> Iterator[Finding]:
    import torch

    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    yield Finding(name="cpu", text=f"{cores} cores usable by this process")
    if not torch.cuda.is_available():
        wants = config.train.gpus_per_worker not in ("auto", 0)
        text = "no GPU visible; training runs on the CPU"
        if wants:
            text = f"train.gpus_per_worker is {config.train.gpus_per_worker} and no GPU is visible here; " + (
                "set it to auto, or join a cluster that has GPUs"
            )
        yield Finding(name="gpu", text=text, warning=wants)
        return
    for index in range(torch.cuda.device_count()):
        free, total = torch.cuda.mem_get_info(index)
        name = torch.cuda.get_device_name(index)
        yield Finding(name="gpu", text=f"{name}, {free / 2**30:.0f} of {total / 2**30:.0f} GiB free")


def _ray(config: RunConfig) -> Iterator[Finding]:
    token = Path("~/.ray/auth_token").expanduser()
    address = os.environ.get("RAY_ADDRESS")
    if address:
        known = "RAY_AUTH_TOKEN" in os.environ or "RAY_AUTH_TOKEN_PATH" in os.environ or token.exists()
        text = f"RAY_ADDRESS is {address}; " + (
            "an authentication token is set" if known else "no token found: the cluster may be open to anyone"
        )
        yield Finding(name="ray", text=text, warning=not known)
        return
    yield Finding(name="ray", text="no RAY_ADDRESS; a local Ray is started for each sweep")


def _disk(config: RunConfig) -> Iterator[Finding]:
    places = {"temporary": tempfile.gettempdir()}
    if "://" not in config.storage.uri:
        places["runs"] = config.storage.uri
    for name, place in places.items():
        folder = Path(place).expanduser().resolve()
        while not folder.exists():
            folder = folder.parent
        free_gb = shutil.disk_usage(folder).free / 1e9
        low = free_gb < _MIN_FREE_GB
        remedy = f"; less than {_MIN_FREE_GB:g} GB: free some, checkpoints may not fit" if low else ""
        yield Finding(name=f"disk {name}", text=f"{free_gb:.0f} GB free under {folder}{remedy}", warning=low)


def _storage(config: RunConfig) -> Iterator[Finding]:
    from orchestrator.storage import open_store

    root = config.storage.uri if "://" in config.storage.uri else str(Path(config.storage.uri).resolve())
    store = open_store(root, config.storage)
    key = f".doctor-{os.getpid()}"
    started = time.monotonic()
    store.write(key, b"probe")
    try:
        if store.read(key) != b"probe":
            raise StorageError(f"{root}: what was read back differs from what was written")
    finally:
        store.delete(key)
    took_ms = 1000 * (time.monotonic() - started)
    yield Finding(name="storage", text=f"{root}: write, read and delete took {took_ms:.0f} ms")


def _data(config: RunConfig) -> Iterator[Finding]:
    from orchestrator.data import open_shards

    if config.data.source == "scenes":
        images = config.data.scenes_train_images + config.data.scenes_test_images
        yield Finding(name="data", text=f"embedded scenes, {images:,} images, packed on first use")
        return
    local = Path(config.data.source).expanduser()
    if "://" not in config.data.source and not local.exists():
        raise DataError(
            f"data.source: nothing at {local.resolve()}; give a folder, an s3:// prefix or `scenes`"
        )
    try:
        shards = open_shards(config.data.source, config.data, config.storage)
    except DataError as err:
        if "://" in config.data.source:
            raise
        yield Finding(name="data", text=f"{local}: no shards yet, packed on first use ({err})")
        return
    labels = ", ".join(shards.labels) or "none"
    yield Finding(name="data", text=f"{shards.uri}: labels {labels}; digest {shards.digest[:12]}")


def _tracking(config: RunConfig) -> Iterator[Finding]:
    from orchestrator.tracking import find_place

    root = "runs" if "://" in config.storage.uri else config.storage.uri
    place = find_place(config.tracking, str(Path(root).expanduser().resolve()))
    if place.remote:
        from orchestrator.tracking import check_reachable

        try:
            check_reachable(place)
        except TrackingError as err:
            yield Finding(
                name="tracking", text=f"{err}; metrics would be spooled until it answers", warning=True
            )
            return
    yield Finding(name="tracking", text=f"MLflow at {place.uri}")
