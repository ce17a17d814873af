"""From a configuration to a job: what must hold before it leaves this machine, its id, and its command line.

Pure but for `submit`, which sends. The id of a sweep is a function of its resolved configuration, so that submitting
the same file twice is one sweep; a sweep whose job died goes on under a new job with the same sweep id.
"""

from __future__ import annotations

import hashlib
import re
import secrets
import shlex
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from orchestrator.config import RunConfig, dump
from orchestrator.config.uris import mask_secrets
from orchestrator.errors import ConfigError, Fault
from orchestrator.jobs.head import is_loopback
from orchestrator.jobs.package import CONFIG_NAME, Package
from orchestrator.jobs.state import JobState
from orchestrator.tracking.location import sqlite_path

if TYPE_CHECKING:
    from orchestrator.jobs.client import JobsClient

_SECRET_NAME = re.compile(r"(?i)TOKEN|SECRET|PASSW|CREDENTIAL|ACCESS_KEY|API_KEY|PRIVATE")
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_FIXED_ENVIRONMENT = {"RAY_USAGE_STATS_ENABLED": "0", "MLFLOW_DISABLE_TELEMETRY": "true"}


@dataclass(frozen=True, kw_only=True)
class JobRequest:
    """What to submit. `python` is the interpreter on the cluster; `stop_wait_s` the grace of `jobs stop`."""

    config: RunConfig
    package: Package
    python: str = "python"
    stop_wait_s: int = 180
    restarts: int = 5
    environment: Mapping[str, str] = field(default_factory=dict)
    fresh: bool = False


@dataclass(frozen=True, kw_only=True)
class Submitted:
    """The outcome: the job, its sweep, and whether it is new, goes on with an earlier one, or was there already."""

    job_id: str
    sweep_id: str
    outcome: str
    earlier: JobState | None = None


def submit(client: JobsClient, request: JobRequest) -> Submitted:
    """Start the sweep's job, go on with a sweep whose last job failed, or find it running or done.

    Raises:
        ClusterError: The cluster refuses it.
    """
    sweep_id = sweep_id_of(request.config, fresh=request.fresh)
    earlier = [state for state in client.jobs() if state.sweep_id == sweep_id]
    if earlier and (earlier[0].active or earlier[0].status == "SUCCEEDED"):
        return Submitted(job_id=earlier[0].job_id, sweep_id=sweep_id, outcome="present", earlier=earlier[0])
    job_id = sweep_id if not earlier else f"{sweep_id}-job{len(earlier) + 1}"
    is_new = client.submit(
        job_id=job_id,
        sweep_id=sweep_id,
        name=request.config.name,
        entrypoint=entrypoint(sweep_id, python=request.python, restarts=request.restarts),
        package=request.package.data,
        environment={
            **_FIXED_ENVIRONMENT,
            "RAY_JOB_STOP_WAIT_TIME_S": str(request.stop_wait_s),
            **request.environment,
        },
    )
    outcome = "present" if not is_new else "resumed" if earlier else "new"
    return Submitted(job_id=job_id, sweep_id=sweep_id, outcome=outcome)


def sweep_id_of(config: RunConfig, *, fresh: bool = False) -> str:
    """Name and ten hex digits of the resolved configuration; random ones when `fresh`."""
    digest = secrets.token_hex(5) if fresh else hashlib.sha256(dump(config).encode()).hexdigest()[:10]
    return f"{config.name}-{digest}"


def entrypoint(sweep_id: str, *, python: str, restarts: int) -> str:
    """The shell command of the job: the driver, under a keeper that starts it again when it is killed."""
    driver = [python, "-m", "orchestrator", "jobs", "drive", CONFIG_NAME, "--sweep-id", sweep_id]
    keeper = [python, "-m", "orchestrator.jobs.keeper", "--restarts", str(restarts), "--", *driver]
    return " ".join(shlex.quote(word) for word in keeper)


def check_shared_storage(config: RunConfig, *, shared_filesystem: bool) -> None:
    """Refuse places that the cluster's nodes do not share: what is written there would be lost with the job.

    Raises:
        ConfigError: Every such place.
    """
    faults = []
    storage, source, tracking = config.storage.uri, config.data.source, config.tracking.uri
    if not _shared(storage, shared_filesystem):
        faults.append(_unshared("storage.uri", storage))
    if source != "scenes" and not _shared(source, shared_filesystem):
        faults.append(_unshared("data.source", source))
    local = tracking is None and storage.startswith("s3://")
    if local or (tracking is not None and not _shared(tracking, shared_filesystem)):
        faults.append(
            Fault(
                key="tracking.uri",
                rule="must outlive the job: a database file on a cluster's node is lost with the node",
                given=str(tracking),
                remedy="give an MLflow server, http(s)://host:port (infra/mlflow)",
            )
        )
    if faults:
        raise ConfigError(faults)


def shared_storage_warnings(config: RunConfig, url: str) -> list[str]:
    """Addresses that mean this machine here, and another one on the cluster."""
    if is_loopback(url):
        return []
    places = {"storage.endpoint_url": config.storage.endpoint_url, "tracking.uri": config.tracking.uri}
    return [
        f"{key} is {value}: on the cluster that is the node itself, not this machine"
        for key, value in places.items()
        if value is not None and "://" in value and is_loopback(value)
    ]


def parse_environment(pairs: Iterable[str]) -> dict[str, str]:
    """`NAME=value` pairs; names and values that look like secrets are refused.

    Whoever may read a job's record reads its variables, and Ray shows them in its dashboard and logs.

    Raises:
        ConfigError: A malformed pair or a secret.
    """
    found, faults = {}, []
    for pair in pairs:
        name, equals, value = pair.partition("=")
        if not equals or not _VARIABLE.fullmatch(name):
            faults.append(Fault(key="--env", rule="must be NAME=value", given=mask_secrets(pair)[:80]))
        elif _SECRET_NAME.search(name) or mask_secrets(value) != value:
            faults.append(
                Fault(
                    key=f"--env {name}",
                    rule="looks like a secret, and a job's variables are shown to whoever reads its record",
                    remedy="give the nodes a role, a mounted credentials file or a Kubernetes Secret instead",
                )
            )
        else:
            found[name] = value
    if faults:
        raise ConfigError(faults)
    return found


def _shared(uri: str, shared_filesystem: bool) -> bool:
    scheme = urlsplit(uri).scheme if "://" in uri else ""
    if scheme not in ("", "file", "sqlite"):
        return True
    path = sqlite_path(uri) or Path(uri.removeprefix("file://"))
    return shared_filesystem and path.is_absolute()


def _unshared(key: str, given: str) -> Fault:
    return Fault(
        key=key,
        rule="must be a place that every node of the cluster reaches",
        given=given,
        remedy="give an s3:// prefix; or an absolute path with --shared-filesystem where all nodes mount it",
    )
