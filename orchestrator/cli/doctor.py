"""Checks of the machine and of what a configuration needs, each with its remedy.

The machine's own are here; those of clusters, buckets and servers are in `doctor_services`. None of them spends
anything.
"""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from importlib.metadata import version
from pathlib import Path

from orchestrator.cli import doctor_services as services
from orchestrator.cli.findings import ClusterAccess, Finding
from orchestrator.config import RunConfig
from orchestrator.config.uris import absolute_path
from orchestrator.errors import OrchestratorError, StorageError
from orchestrator.text import counted

_MIN_FREE_GB = 5.0
_MIN_SHARED_GB = 0.5


def examine(config: RunConfig, cluster: ClusterAccess | None = None) -> list[Finding]:
    """Run every check; with `cluster`, those of a Ray cluster that jobs are submitted to as well."""
    checks: list[tuple[str, Callable[[], Iterator[Finding]]]] = [
        ("python", lambda: _python(config)),
        ("gpu", lambda: _devices(config)),
        ("driver", _gpu_driver),
        ("disk", lambda: _disk(config)),
        ("ray", lambda: services.ray_cluster(config, cluster)),
        ("plan", lambda: services.plan(config)),
        ("storage", lambda: services.storage(config)),
        ("cache", lambda: services.cache(config)),
        ("data", lambda: services.data(config)),
        ("teacher", lambda: _teacher(config)),
        ("tracking", lambda: services.tracking(config)),
        ("clock", lambda: services.clock(config, cluster)),
    ]
    findings: list[Finding] = []
    for name, check in checks:
        try:
            findings += check()
        except OrchestratorError as err:
            findings.append(Finding(name=name, text=str(err), exit_code=err.exit_code))
        except (OSError, RuntimeError) as err:  # a refusal of the system, or links that lead in a circle
            said = (
                f"{err.filename}: {err.strerror}" if isinstance(err, OSError) and err.filename else str(err)
            )
            text = f"{said}; check the place and its permissions"
            findings.append(Finding(name=name, text=text, exit_code=StorageError.exit_code))
    return findings


def _python(config: RunConfig) -> Iterator[Finding]:
    names = ("torch", "timm", "ray", "mlflow", "webdataset")
    packages = ", ".join(f"{name} {version(name)}" for name in names)
    yield Finding(name="python", text=f"{platform.python_version()}; {packages}")


def _teacher(config: RunConfig) -> Iterator[Finding]:
    """How far the target encoder, which probes read, lags behind the trained one at the end of a trial."""
    from orchestrator.sweep.foresight import lag_of_sweep
    from orchestrator.sweep.space import plan_sweep

    lag = lag_of_sweep(config, plan_sweep(config))
    if lag is not None:
        yield Finding(name="teacher", text=lag.warning() or lag.text(), warning=lag.is_large)


def _devices(config: RunConfig) -> Iterator[Finding]:
    import torch

    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    yield Finding(name="cpu", text=f"{counted(cores, 'core')} usable by this process")
    if not torch.cuda.is_available():
        wants = config.train.gpus_per_worker not in ("auto", 0)
        text = "no GPU visible; training runs on the CPU"
        if wants:
            text = f"train.gpus_per_worker is {config.train.gpus_per_worker} and no GPU is visible here; " + (
                "set it to auto, or join a cluster that has GPUs"
            )
        yield Finding(name="gpu", text=text, warning=wants)
        return
    names = {torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())}
    if len(names) > 1:
        text = (
            f"different GPUs in one machine ({', '.join(sorted(names))}): GPU hours of trials do not compare"
        )
        yield Finding(name="gpu", text=text, warning=True)
    for index in range(torch.cuda.device_count()):
        free, total = torch.cuda.mem_get_info(index)
        name = torch.cuda.get_device_name(index)
        yield Finding(name="gpu", text=f"{name}, {free / 2**30:.0f} of {total / 2**30:.0f} GiB free")


def _gpu_driver() -> Iterator[Finding]:
    """The driver's version, and the case that torch sees no GPU although there is one."""
    import torch

    tool = shutil.which("nvidia-smi")
    if tool is None:
        return
    query = [tool, "--query-gpu=name,driver_version", "--format=csv,noheader"]
    done = subprocess.run(query, capture_output=True, text=True, timeout=30, check=False)
    gpus = [line for line in done.stdout.splitlines() if line.strip()]
    if done.returncode or not gpus:
        yield Finding(name="driver", text=f"nvidia-smi fails: {done.stderr.strip()[:200]}", warning=True)
    elif not torch.cuda.is_available():
        text = f"nvidia-smi sees {gpus[0]}, torch (CUDA {torch.version.cuda}) does not: update the driver"
        yield Finding(name="driver", text=text, exit_code=7)
    else:
        text = f"driver {gpus[0].rpartition(',')[2].strip()}, torch is built for CUDA {torch.version.cuda}"
        yield Finding(name="driver", text=text)


def _disk(config: RunConfig) -> Iterator[Finding]:
    from orchestrator.sweep.journal import Runs

    places = {"temporary": tempfile.gettempdir()}
    if not (runs := Runs.of(config.storage)).is_bucket:
        places["runs"] = str(runs.local_folder)
    for name, place in places.items():
        folder = absolute_path(place)
        while not folder.exists():
            folder = folder.parent
        free_gb = shutil.disk_usage(folder).free / 1e9
        low = free_gb < _MIN_FREE_GB
        remedy = f"; less than {_MIN_FREE_GB:g} GB: free some, checkpoints may not fit" if low else ""
        yield Finding(name=f"disk {name}", text=f"{free_gb:.0f} GB free under {folder}{remedy}", warning=low)
    shared = Path("/dev/shm")
    if shared.exists() and (size_gb := shutil.disk_usage(shared).total / 1e9) < _MIN_SHARED_GB:
        text = (
            f"/dev/shm has {size_gb:.2f} GB, less than {_MIN_SHARED_GB:g}: Ray's objects go to a slow disk; "
            + ("in a container give it more (--shm-size, or an emptyDir of medium Memory)")
        )
        yield Finding(name="disk shared", text=text, warning=True)
