"""Starting or joining Ray, and how many trials fit on it at once."""

from __future__ import annotations

import logging
import math
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path

import ray
from ray.exceptions import RayActorError, RaySystemError

from orchestrator.cluster.local import find_ray_folder, ray_folder
from orchestrator.cluster.loopback import loopback_only
from orchestrator.cluster.processes import kill_own_processes
from orchestrator.cluster.token import find_token, private_token, use_token
from orchestrator.cluster.watchdog import JOINED_LIMITS_S, LOCAL_LIMITS_S, watchdog
from orchestrator.config.models import RunConfig
from orchestrator.errors import ClusterError
from orchestrator.text import counted
from orchestrator.train.ray import ACCELERATOR_PREFIX, HEALTH_CHECK_INTERVAL_S, TrialResources, error_text

DRIVER_RESOURCE = "orchestrator_driver"
"""Custom resource of the driver's node: trial drivers live there and take no CPU share from the workers."""

_SLOTS_PER_PLACE = 4
"""Trials that share the room for one asynchronous evaluation: an evaluation is short against what lies between two."""

_DRIVER_SHARE = 0.001
_OBJECT_STORE_BYTES = 256 * 2**20
_WORKER_ENVIRONMENT = {
    "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": HEALTH_CHECK_INTERVAL_S,
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    "TUNE_DISABLE_SIGINT_HANDLER": "1",
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_AIR_NEW_OUTPUT": "0",  # Tune's newer output prints a banner whatever its verbosity
    "RAY_TRAIN_ENABLE_PREEMPTION_WATCHER": "0",
}


@dataclass(frozen=True, kw_only=True)
class Cluster:
    """What a running Ray cluster offers."""

    resources: Mapping[str, float]
    gpus_by_type: Mapping[str, float] = field(default_factory=dict)
    """GPUs of each kind, by Ray's name; kinds that Ray does not recognise are missing."""

    @property
    def num_gpus(self) -> float:
        """GPUs of all nodes."""
        return self.resources.get("GPU", 0.0)

    def text(self) -> str:
        """In words: what trials can have of it."""
        cpus, gpus = (f"{self.resources.get(name, 0.0):g} {name}" for name in ("CPU", "GPU"))
        return f"{cpus}s, {gpus}s"

    def driver_share(self) -> dict[str, float]:
        """What a trial's driver holds: our custom resource, or a sliver of a CPU on a foreign cluster."""
        if DRIVER_RESOURCE in self.resources:
            return {DRIVER_RESOURCE: _DRIVER_SHARE}
        return {"CPU": 0.01}


@contextmanager
def ray_cluster(
    address: str | None = None,
    *,
    num_cpus: int | None = None,
    on_cluster_loss: Callable[[ClusterError], None] | None = None,
) -> Iterator[Cluster]:
    """Join the cluster at `address`, or start one on this machine, for the length of a `with` block.

    An already connected process is used as it is and left connected. `on_cluster_loss` is called from another thread
    when the cluster dies meanwhile; it must end the process, since calls into Ray may never return by then.

    Raises:
        ClusterError: Ray cannot be started or reached.
        KeyboardInterrupt: Ctrl-C or SIGTERM came while Ray was starting; what it had started is gone.
    """
    if ray.is_initialized():
        yield _describe()
        return
    os.environ.update({key: os.environ.get(key, value) for key, value in _WORKER_ENVIRONMENT.items()})
    with ExitStack() as kept:
        _connect(address, num_cpus, kept)
        yield from _connected(address, on_cluster_loss)


def _connect(address: str | None, num_cpus: int | None, kept: ExitStack) -> None:
    """Join the cluster at `address`, or start one whose files are `kept`."""
    try:
        if address is None:
            _start(num_cpus, kept)
        else:
            _join(address)
    except ClusterError:
        raise
    except (KeyboardInterrupt, SystemExit):  # Ray's own answer to SIGTERM while it starts is to exit
        if address is None:
            kill_own_processes()
        ray.shutdown()
        raise KeyboardInterrupt from None
    except Exception as err:  # Ray raises a bare Exception when one of its processes dies while it starts
        raise _not_connected(address, err) from err


def _not_connected(address: str | None, error: Exception) -> ClusterError:
    """The error of a Ray that does not start, with where it says more, or of a cluster that is not there."""
    said = " ".join(str(error).split())
    if address is not None:
        return ClusterError(
            f"cannot join the cluster at {address}: {said}; check that it runs, that this machine is one of its nodes, "
            "and the token; without --address a sweep starts a Ray of its own"
        )
    logs = (find_ray_folder().path or Path("/tmp/orchestrator-*")) / "session_latest" / "logs"
    return ClusterError(f"cannot start a local Ray: {said}; its own logs say more: {logs}")


def _connected(
    address: str | None, on_cluster_loss: Callable[[ClusterError], None] | None
) -> Iterator[Cluster]:
    """The cluster that this process is connected to, watched; disconnected at the end."""
    limits_s = LOCAL_LIMITS_S if address is None else JOINED_LIMITS_S

    def lost(error: ClusterError) -> None:
        if address is None:
            kill_own_processes()
        if on_cluster_loss is not None:
            on_cluster_loss(error)

    try:
        with nullcontext() if on_cluster_loss is None else watchdog(limits_s, lost):
            yield _describe()
    except (RayActorError, RaySystemError) as err:  # often known before the watchdog is sure
        raise ClusterError(
            f"the cluster is lost, or the sweep's coordinator on it ({error_text(err)}); the journal and every "
            "checkpoint are safe: go on with the same command and --resume, or submit it again"
        ) from err
    finally:
        ray.shutdown()


def _describe() -> Cluster:
    """What the connected cluster has."""
    by_type: dict[str, float] = {}
    for node in ray.nodes():
        kinds = [name for name in node["Resources"] if name.startswith(ACCELERATOR_PREFIX)]
        if node["Alive"] and kinds:
            kind = kinds[0].removeprefix(ACCELERATOR_PREFIX)
            by_type[kind] = by_type.get(kind, 0.0) + node["Resources"].get("GPU", 0.0)
    return Cluster(resources=ray.cluster_resources(), gpus_by_type=by_type)


def _start(num_cpus: int | None, kept: ExitStack) -> None:
    """A cluster of this machine alone, on loopback, with a token that only its owner can read.

    By itself Ray would join whatever RAY_ADDRESS names, or the last one that was started here, whoever did.
    """
    kept.enter_context(private_token())
    folder = kept.enter_context(ray_folder())
    use_token()
    with loopback_only():
        ray.init(
            address="local",
            _temp_dir=str(folder),
            num_cpus=num_cpus,
            include_dashboard=False,
            _node_ip_address="127.0.0.1",
            object_store_memory=_OBJECT_STORE_BYTES,
            resources={DRIVER_RESOURCE: 1.0},
            log_to_driver=False,
            logging_level=logging.ERROR,
        )


def _join(address: str) -> None:
    if find_token() is not None:
        use_token()
    ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR)


def local_cluster(num_cpus: int | None = None) -> Cluster:
    """What a Ray that is started here would offer, without starting it."""
    from ray._private.accelerators import get_accelerator_manager_for_resource
    from ray._private.utils import get_num_cpus

    accelerators = get_accelerator_manager_for_resource("GPU")
    num_gpus = float(accelerators.get_current_node_num_accelerators())
    visible = accelerators.get_current_process_visible_accelerator_ids()
    if visible is not None:
        num_gpus = min(num_gpus, float(len(visible)))
    kind = accelerators.get_current_node_accelerator_type() if num_gpus else None
    return Cluster(
        resources={
            "CPU": float(num_cpus or get_num_cpus()),
            **({"GPU": num_gpus} if num_gpus else {}),
            DRIVER_RESOURCE: 1.0,
        },
        gpus_by_type={kind: num_gpus} if kind else {},
    )


def trial_resources(config: RunConfig, cluster: Cluster) -> TrialResources:
    """What each worker of a trial gets on this cluster.

    Raises:
        ClusterError: GPUs of several kinds and no `train.gpu_type`, or none of that kind.
    """
    gpus = config.train.gpus_per_worker
    need = TrialResources(
        num_workers=config.train.num_workers,
        cpus_per_worker=config.train.cpus_per_worker,
        gpus_per_worker=(1.0 if cluster.num_gpus else 0.0) if gpus == "auto" else gpus,
        gpu_type=config.train.gpu_type,
        min_workers=config.train.min_workers,
    )
    if need.gpus_per_worker > 0:
        _check_gpu_type(need.gpu_type, cluster.gpus_by_type)
    return need


def _check_gpu_type(gpu_type: str | None, by_type: Mapping[str, float]) -> None:
    there = ", ".join(f"{count:g} {kind}" for kind, count in sorted(by_type.items())) or "none that Ray knows"
    if gpu_type is None and len(by_type) > 1:
        raise ClusterError(
            f"the cluster has GPUs of several kinds ({there}): GPU hours and rates of trials would not compare; "
            "choose one with train.gpu_type"
        )
    if gpu_type is not None and gpu_type not in by_type:
        raise ClusterError(f"train.gpu_type is {gpu_type}, the cluster has {there}; use one of these")


@dataclass(frozen=True, kw_only=True)
class Room:
    """How many trials run on the cluster at once, and whether evaluations find room beside them."""

    num_slots: int
    evaluates_async: bool = False


def plan_room(config: RunConfig, cluster: Cluster) -> Room:
    """How many trials fit on the cluster at once; Tune does not know, since Train allocates the workers itself.

    One that fits with fewer workers than it should, but no fewer than it may, is one. With `probe.beside` there is one
    place for an evaluation for every four trials begun; where not even one trial and one place fit together, none.

    Raises:
        ClusterError: Not even one trial fits.
    """
    need = trial_resources(config, cluster)
    fits = _count_fitting(need, cluster)
    if fits < 1:
        least = need.with_workers(need.sizes[-1])
        if _count_fitting(least, cluster) < 1:
            raise ClusterError(_too_large(least, cluster))
        return Room(num_slots=1)
    limit = config.sweep.max_concurrent_trials
    fits = fits if limit == "auto" else min(fits, limit)
    beside = config.probe.beside
    if beside is None:
        return Room(num_slots=fits)
    slot, there = _wanted(need, cluster), _offered(need, cluster)
    place = {"CPU": beside.cpus, "GPU": beside.gpus}
    both = next((n for n in range(fits, 0, -1) if _fit_together(n, slot, place, there)), None)
    return Room(num_slots=fits) if both is None else Room(num_slots=both, evaluates_async=True)


def _wanted(need: TrialResources, cluster: Cluster) -> dict[str, float]:
    spare = cluster.driver_share().get("CPU", 0.0)  # for Tune's own trial
    return {"CPU": need.num_cpus + spare, "GPU": need.num_gpus}


def _offered(need: TrialResources, cluster: Cluster) -> dict[str, float]:
    there = dict(cluster.resources)
    if need.gpu_type is not None:
        there["GPU"] = cluster.gpus_by_type.get(need.gpu_type, 0.0)
    return there


def _count_fitting(need: TrialResources, cluster: Cluster) -> int:
    there = _offered(need, cluster)
    wanted = _wanted(need, cluster)
    return min(math.floor(there.get(name, 0.0) / amount + 1e-9) for name, amount in wanted.items() if amount)


def _fit_together(
    num_slots: int, slot: Mapping[str, float], place: Mapping[str, float], there: Mapping[str, float]
) -> bool:
    num_places = math.ceil(num_slots / _SLOTS_PER_PLACE)
    return all(
        num_slots * slot[name] + num_places * place[name] <= there.get(name, 0.0) + 1e-9 for name in slot
    )


def _too_large(need: TrialResources, cluster: Cluster) -> str:
    return (
        f"one trial needs {counted(need.num_cpus, 'CPU')} and {counted(need.num_gpus, 'GPU')} "
        f"({counted(need.num_workers, 'worker')}), the cluster has {cluster.resources.get('CPU', 0):g} and "
        f"{cluster.num_gpus:g}; lower train.num_workers, train.min_workers, train.cpus_per_worker or "
        "train.gpus_per_worker"
    )
