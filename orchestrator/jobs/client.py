"""The one door to Ray Jobs: connect, submit, list, follow and stop, in our own types and errors."""

from __future__ import annotations

import asyncio
import os
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import aiohttp
import requests
from ray.exceptions import AuthenticationError
from ray.job_submission import JobSubmissionClient

from orchestrator.cluster import Token
from orchestrator.errors import ClusterError
from orchestrator.jobs.head import Head
from orchestrator.jobs.state import JobState
from orchestrator.storage import OPEN_FILES_REMEDY, find_open_files_limit
from orchestrator.text import command_text

SWEEP_KEY = "orchestrator.sweep"
"""Metadata key that holds the sweep's id; jobs without it are not ours."""
_NAME_KEY = "orchestrator.name"
_ADDRESS_VARIABLE = "RAY_API_SERVER_ADDRESS"
T = TypeVar("T")


class JobsClient:
    """A connection to one cluster's job server; make it with `open_client`."""

    def __init__(self, head: Head, client: JobSubmissionClient) -> None:
        self.head, self._client = head, client

    def submit(
        self,
        *,
        job_id: str,
        sweep_id: str,
        name: str,
        entrypoint: str,
        package: bytes,
        environment: Mapping[str, str],
    ) -> bool:
        """Upload the package and start the job; False when a job of that id exists already.

        Raises:
            ClusterError: The cluster refuses it.
        """
        with tempfile.TemporaryDirectory(prefix="orchestrator-submit-") as folder:
            archive = Path(folder) / f"{job_id}.zip"
            archive.write_bytes(package)
            try:
                self._client.submit_job(
                    entrypoint=entrypoint,
                    submission_id=job_id,
                    runtime_env={"working_dir": str(archive), "env_vars": dict(environment)},
                    metadata={SWEEP_KEY: sweep_id, _NAME_KEY: name},
                    entrypoint_num_cpus=0,
                )
            except RuntimeError as err:
                if "already exists" in str(err):
                    return False
                raise self._refused("refuses the job", err) from None
            except (requests.RequestException, AuthenticationError) as err:
                raise self._refused("could not be given the job", err) from None
        return True

    def jobs(self) -> list[JobState]:
        """Every job of ours, newest first.

        Raises:
            ClusterError: The cluster does not answer.
        """
        states = [_state(details) for details in self._ask(self._client.list_jobs)]
        ours = [state for state in states if state is not None]
        return sorted(ours, key=lambda state: state.started_s or 0.0, reverse=True)

    def find(self, name: str) -> JobState:
        """The job of this id, or the newest one of the sweep of this id.

        Raises:
            ClusterError: There is none.
        """
        for state in self.jobs():
            if name in (state.job_id, state.sweep_id):
                return state
        raise ClusterError(f"{self.head.url} knows no job or sweep {name}; see `orchestrator jobs ls`")

    def logs(self, job_id: str) -> str:
        """What the driver has printed so far.

        Raises:
            ClusterError: The cluster does not answer or the log is gone.
        """
        text: str = self._ask(lambda: self._client.get_job_logs(job_id))
        return text

    def follow(self, job_id: str, write: Callable[[str], None]) -> None:
        """Hand on what the driver prints until it ends; the job goes on when this is interrupted.

        Raises:
            ClusterError: The connection breaks.
        """

        async def tail() -> None:
            async for text in self._client.tail_job_logs(job_id):
                write(text)

        self._ask(lambda: asyncio.run(tail()))

    def stop(self, job_id: str) -> None:
        """Ask the driver to write checkpoints and end; returns at once.

        Raises:
            ClusterError: The cluster does not answer.
        """
        self._ask(lambda: self._client.stop_job(job_id))

    def _ask(self, call: Callable[[], T]) -> T:
        try:
            return call()
        except (RuntimeError, OSError, aiohttp.ClientError, AuthenticationError) as err:
            raise self._refused("does not answer as expected", err) from None

    def _refused(self, what: str, error: BaseException) -> ClusterError:
        limit = find_open_files_limit(error)
        if limit is not None:
            return ClusterError(f"cannot ask {self.head.url} ({limit}); {OPEN_FILES_REMEDY}")
        lines = [line.strip() for line in str(error).splitlines() if line.strip()]
        detail = lines[-1] if lines else type(error).__name__
        check = command_text("doctor", "--address", self.head.url)
        return ClusterError(f"{self.head.url} {what}: {detail[:400]}; `{check}` looks at the cluster")


def open_client(head: Head, token: Token | None, *, ca_file: str | None) -> JobsClient:
    """Connect to the job server of a head that has answered.

    Raises:
        ClusterError: It refuses, or is gone.
    """
    headers = {"Authorization": f"Bearer {token.value}"} if token is not None else {}
    with _address_wins(head.url):
        try:
            client = JobSubmissionClient(
                head.url, headers=headers, verify=ca_file if ca_file is not None else True
            )
        except (RuntimeError, OSError, AuthenticationError) as err:
            limit = find_open_files_limit(err)
            reason = f"{limit}; {OPEN_FILES_REMEDY}" if limit is not None else err
            raise ClusterError(f"cannot use the job server at {head.url}: {reason}") from None
    return JobsClient(head, client)


def _state(details: Any) -> JobState | None:
    metadata = details.metadata or {}
    if not details.submission_id or SWEEP_KEY not in metadata:
        return None
    message = (details.message or "").strip()
    return JobState(
        job_id=details.submission_id,
        sweep_id=metadata[SWEEP_KEY],
        name=metadata.get(_NAME_KEY, ""),
        status=getattr(details.status, "value", str(details.status)),
        message=message.splitlines()[-1] if message else "",
        started_s=details.start_time / 1000 if details.start_time else None,
        ended_s=details.end_time / 1000 if details.end_time else None,
        exit_code=details.driver_exit_code,
    )


@contextmanager
def _address_wins(url: str) -> Iterator[None]:
    """Ray lets RAY_API_SERVER_ADDRESS and RAY_ADDRESS override the address that its client is given."""
    before = os.environ.get(_ADDRESS_VARIABLE)
    os.environ[_ADDRESS_VARIABLE] = url
    try:
        yield
    finally:
        if before is None:
            del os.environ[_ADDRESS_VARIABLE]
        else:
            os.environ[_ADDRESS_VARIABLE] = before
