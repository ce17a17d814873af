"""Which tests run on the same worker of pytest-xdist (`--dist loadgroup`), and which groups begin.

A file is never split, so that its module fixtures are made once. Files that use the S3 server, MLflow's store or a
browser are one group each: a worker session has one server, and only the worker that needs it. Each file that starts
Ray is a group of its own: it starts its own local cluster anyway, and together these files take more than half of the
suite's time, which one worker would spend alone.
"""

from __future__ import annotations

import os
from collections import defaultdict
from pathlib import Path

import pytest

_LONGEST_FIRST = (
    "ray-test_sweep_ray",
    "ray-test_main_job",
    "ray-test_sweep_killed_driver",
    "ray-test_train_evaluator",
    "ray-test_sweep_life",
)
"""Groups that would hold up the end of a run if they began late."""

_FIXTURES = {"s3": "s3", "s3_server": "s3", "s3_bucket": "s3", "template_database": "mlflow"}


def usable_cores() -> int:
    """Cores that this process may use: its affinity, and the limit of its control group."""
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    limit = Path("/sys/fs/cgroup/cpu.max")
    quota, _, period = limit.read_text().partition(" ") if limit.exists() else ("max", "", "")
    return allowed if quota == "max" else max(1, min(allowed, round(int(quota) / int(period))))


def share_out(items: list[pytest.Item]) -> None:
    """Give every test the group that runs on one worker, and let the long groups begin: short ones fill the end."""
    files = defaultdict[Path, list[pytest.Item]](list)
    for item in items:
        files[item.path].append(item)
    groups = {path: _group(path.stem, tests) for path, tests in files.items()}
    for item in items:
        item.add_marker(pytest.mark.xdist_group(groups[item.path]))
    items.sort(key=lambda item: _rank(groups[item.path]))


def _group(file: str, tests: list[pytest.Item]) -> str:
    if any(test.get_closest_marker("ray") for test in tests):
        return f"ray-{file}"
    if any(test.get_closest_marker("browser") for test in tests):
        return "browser"
    used = {name for test in tests for name in _used(test)}
    return next((_FIXTURES[name] for name in sorted(used & _FIXTURES.keys())), file)


def _used(test: pytest.Item) -> set[str]:
    """Names of a test's fixtures; a parameter `s3` makes a fixture ask for the server."""
    spec = getattr(test, "callspec", None)
    chosen = {value for value in spec.params.values() if isinstance(value, str)} if spec else set()
    return {*getattr(test, "fixturenames", ()), *(chosen & _FIXTURES.keys())}


def _rank(group: str) -> int:
    if group in _LONGEST_FIRST:
        return _LONGEST_FIRST.index(group)
    return len(_LONGEST_FIRST) + (not group.startswith("ray-"))
