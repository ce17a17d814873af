"""What a sweep needs before anything is spent: its driver checks it at the start, `orchestrator doctor` at any time."""

from __future__ import annotations

from pathlib import Path

from orchestrator.cluster import find_token, ignored_address, local_cluster, plan_room, ray_folder_warnings
from orchestrator.config.models import RunConfig
from orchestrator.data.format import file_lock
from orchestrator.data.pack import open_cache
from orchestrator.errors import ConfigError, Fault
from orchestrator.storage import check_store, open_store
from orchestrator.sweep.journal import Runs


def check_start(config: RunConfig, *, address: str | None = None, num_cpus: int | None = None) -> list[str]:
    """Check the places and the machine that a sweep is about to use; returns what its user should know.

    Of a cluster that is joined nothing is known beforehand, and its nodes may see other files.

    Raises:
        ConfigError: A file that the configuration names is not there.
        StorageError: The runs or the cache cannot be written.
        ClusterError: A local Ray cannot start, or no trial fits on this machine.
    """
    check_store(Runs.of(config.storage).store_with(config.storage), num_reads=1)
    check_cache(config)
    if address is not None:
        return []
    check_initial(config)
    return check_ray(config, num_cpus=num_cpus)


def check_ray(config: RunConfig, *, num_cpus: int | None = None) -> list[str]:
    """Whether a Ray of this machine can start and hold a trial; returns what its user should know.

    Raises:
        ClusterError: It cannot.
    """
    find_token()
    plan_room(config, local_cluster(num_cpus))
    notes = ray_folder_warnings()
    if there := ignored_address():
        notes.append(
            f"RAY_ADDRESS is {there} and is not joined: a sweep starts a Ray of its own; `--address {there}` joins it"
        )
    return notes


def check_cache(config: RunConfig) -> Path:
    """The node's cache folder, which must be writable.

    Raises:
        StorageError: It is not.
    """
    folder = open_cache(config.data).folder
    with file_lock(folder / "locks" / "check.lock"):
        return folder


def check_initial(config: RunConfig) -> None:
    """The file that training begins with is there.

    Raises:
        ConfigError: It is not.
    """
    uri = config.train.init_from
    if uri is None:
        return
    folder, _, name = (uri if "://" in uri else str(Path(uri).resolve())).rpartition("/")
    if not open_store(folder or "/", config.storage).exists(name):
        raise ConfigError(
            [
                Fault(
                    key="train.init_from",
                    rule="must be a file that is there",
                    given=uri,
                    remedy="give the path of a published checkpoint, or remove the line",
                )
            ]
        )
