"""Which tests run on the same worker of pytest-xdist, and which begin.

A file is never split, so that its module fixtures are made once. Files that use the S3 server, MLflow's store or a
browser are one group each: a worker session has one server, and only the worker that needs it. Each file that starts
Ray is a group of its own: it starts its own local cluster anyway, and together these files take more than half of the
suite's time, which one worker would spend alone.

The groups are told by a scheduler of ours. `xdist_group` marks have no effect with pytest 9.2: pytest-xdist 3.8 writes
them into an attribute that pytest no longer reads.
"""

from __future__ import annotations

import functools
import os
import re
from pathlib import Path
from typing import Any

import pytest
from xdist.scheduler import LoadScopeScheduling
from xdist.workermanage import WorkerController

_ROOT = Path(__file__).parent.parent
_LONGEST_FIRST = (
    "ray-test_sweep_ray",
    "ray-test_main_job",
    "ray-test_sweep_killed_driver",
    "ray-test_train_evaluator",
    "ray-test_sweep_life",
)
"""Groups that would hold up the end of a run if they began late."""

_SHARED = (
    ("browser", r"\bmark\.browser\b"),
    ("s3", r"\bs3_(server|bucket)\b|[\"']s3[\"']|\bprocesses: "),
    ("mlflow", r"\b(template_database|migrated_runs)\b"),
)
"""Groups of several files, and what a file of each says; the first that fits."""


class GroupScheduling(LoadScopeScheduling):
    """Hands whole groups to the workers, and what a crashed worker leaves to the others.

    pytest-xdist 3.8 queues a crashed worker's ended groups again. A worker that is given one has nothing to report,
    so it is given nothing more, and the run waits for ever. It also queues the test that crashed, whatever `--reruns`
    says.
    """

    def remove_node(self, node: WorkerController) -> str | None:
        """Queue the tests that this worker has not begun; returns the one that was running, which fails."""
        left = {
            group: [test for test, has_ended in tests.items() if not has_ended]
            for group, tests in self.assigned_work.pop(node).items()
        }
        crashed = next((test for tests in left.values() for test in tests), None)
        for tests in left.values():
            for test in tests:
                if test != crashed:
                    self._queue(test)
        for other in self.nodes:
            self._reschedule(other)
        return crashed

    def mark_test_pending(self, item: str) -> None:
        """Queue a test that crashed its worker: `--reruns` grants it another run."""
        self._queue(item)
        for node in self.nodes:
            self._reschedule(node)

    def _queue(self, test: str) -> None:
        self.workqueue.setdefault(self._split_scope(test), {})[test] = False

    def _assign_work_unit(self, node: WorkerController) -> None:
        """Hand the next group to a worker, which may have had tests of it before."""
        group, tests = self.workqueue.popitem(last=False)
        self.assigned_work[node].setdefault(group, {}).update(tests)
        place = self.registered_collections[node].index
        node.send_runtest_some([place(test) for test in tests])

    def _split_scope(self, nodeid: str) -> str:
        return group_of(nodeid.partition("::")[0])


def usable_cores() -> int:
    """Cores that this process may use: its affinity, and the limit of its control group."""
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    limit = Path("/sys/fs/cgroup/cpu.max")
    quota, _, period = limit.read_text().partition(" ") if limit.exists() else ("max", "", "")
    return allowed if quota == "max" else max(1, min(allowed, round(int(quota) / int(period))))


@functools.cache
def group_of(file: str) -> str:
    """The group of a file of tests, given by its path below the root of the repository."""
    path = _ROOT / file
    text = path.read_text(encoding="utf-8")
    if re.search(r"\bmark\.ray\b", text):
        return f"ray-{path.stem}"
    return next((group for group, sign in _SHARED if re.search(sign, text)), path.stem)


def longest_first(items: list[Any]) -> None:
    """Let the long groups begin: short ones fill the end."""
    items.sort(key=lambda item: _rank(group_of(item.nodeid.partition("::")[0])))


def scheduler(config: pytest.Config, log: Any) -> GroupScheduling | None:
    """The scheduler of `--dist loadgroup`; other ways of dealing tests out are left to pytest-xdist."""
    return GroupScheduling(config, log) if config.getvalue("dist") == "loadgroup" else None


def _rank(group: str) -> int:
    if group in _LONGEST_FIRST:
        return _LONGEST_FIRST.index(group)
    return len(_LONGEST_FIRST) + (not group.startswith("ray-"))
