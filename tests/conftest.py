"""Fixtures that more than one room's tests use, and the workers and threads of a run."""

from __future__ import annotations

import contextlib
import functools
import multiprocessing.context
import multiprocessing.forkserver
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings

sys.path.insert(0, str(Path(__file__).parent))

import examples  # noqa: F401  registers the profiles
import threads
from command_line import Outcome, run_command
from full_disk import SmallDisk, small_disk
from parallel import longest_first, scheduler, usable_cores
from s3_server import S3Server, run_s3_server

from orchestrator.cli.proxies import spare_loopback

spare_loopback()
settings.load_profile("commit")  # `--hypothesis-profile` replaces it


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers() -> int:
    """`-n auto` is one process a core that this process may use; PYTEST_XDIST_AUTO_NUM_WORKERS overrides it."""
    return int(os.environ.get("PYTEST_XDIST_AUTO_NUM_WORKERS") or usable_cores())


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """Groups of files, each on one worker."""
    return scheduler(config, log)


@pytest.hookimpl(trylast=True)
def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    """Name a failure when it happens: a run that is cut short prints no summary."""
    if report.outcome in ("failed", "rerun") and "PYTEST_XDIST_WORKER" not in os.environ:
        said = report.longreprtext.splitlines() or [""]
        print(f"\n{report.outcome}: {report.nodeid}: {said[-1]}", flush=True)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """With workers the longest groups begin. A single process keeps the usual order."""
    if hasattr(config, "workerinput"):
        longest_first(items)


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Every test begins with the threads that `threads` chose."""
    yield
    threads.reset()


@pytest.fixture(scope="session")
def s3_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    """A real S3 server on loopback, one for the session."""
    with run_s3_server(tmp_path_factory.mktemp("s3")) as server:
        yield server


@pytest.fixture
def s3_bucket(s3_server: S3Server, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The `s3://` URI of a new bucket, with the environment that the standard boto3 chain needs to reach it."""
    from orchestrator.storage import s3

    for name, value in s3_server.environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("AWS_PROFILE", raising=False)
    s3._make_client.cache_clear()
    yield s3_server.make_bucket()
    s3._make_client.cache_clear()


@pytest.fixture(scope="session")
def template_database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A migrated MLflow database, made once: migration takes seconds. Copy it before use."""
    from orchestrator.config.models import TrackingConfig
    from orchestrator.tracking import find_location
    from orchestrator.tracking.client import open_client

    folder = tmp_path_factory.mktemp("template")
    open_client(find_location(TrackingConfig(), str(folder))).search_experiments()
    return folder / "mlflow.db"


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., Outcome]:
    """Runs `orchestrator` with the arguments that it is given, in this process."""
    return functools.partial(run_command, monkeypatch, capsys)


@pytest.fixture(scope="session")
def processes(s3_server: S3Server) -> multiprocessing.context.ForkServerContext:
    """Processes that start quickly, since torch is imported once for all; they reach the S3 server."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(
        ["torch", "orchestrator.data.read.stream", "orchestrator.data.pack.prepare"]
    )
    with pytest.MonkeyPatch.context() as patch:
        for name, value in s3_server.environment.items():
            patch.setenv(name, value)
        multiprocessing.forkserver.ensure_running()  # its children have the environment of this moment
    return context


@pytest.fixture(scope="module")
def cluster() -> Iterator[None]:
    """A Ray of this machine, one for all tests of a file."""
    from orchestrator.cluster.connect import ray_cluster

    with ray_cluster(num_cpus=2):
        yield


@pytest.fixture
def migrated_runs(template_database: Path, tmp_path: Path) -> Path:
    """The folder of runs of `tiny_config`, with an MLflow database: a sweep need not make one, which takes seconds."""
    runs = tmp_path / "runs"
    runs.mkdir()
    shutil.copy(template_database, runs / "mlflow.db")
    return runs


@pytest.fixture
def full_disk(tmp_path: Path) -> Iterator[SmallDisk]:
    """A small file system of its own, to be filled."""
    with contextlib.ExitStack() as stack:
        try:
            disk = stack.enter_context(small_disk(tmp_path / "disk"))
        except (OSError, subprocess.CalledProcessError):
            pytest.skip("a tmpfs cannot be mounted here; it takes root on Linux")
        yield disk
