"""Asynchronous evaluations: the figures of those that training stops for, and never a run's end."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from tiny_sweeps import tiny_config

from orchestrator.config import default_config
from orchestrator.data import prepare_data
from orchestrator.protocol.jobs import TrialJob
from orchestrator.protocol.metrics import MISSING
from orchestrator.protocol.reports import Decision, TrialReport
from orchestrator.train.distributed import Rank
from orchestrator.train.evaluate.asynchronous import (
    Evaluations,
    NoRoomForEvaluationError,
    Snapshot,
    evaluate_snapshot,
)
from orchestrator.train.evaluate.data_cache import DataCache
from orchestrator.train.evaluate.evaluation import Evaluation
from orchestrator.train.loop.checkpoint import load_latest
from orchestrator.train.loop.run import Run
from orchestrator.train.reporting import ListReporter
from orchestrator.train.stores import checkpoint_store

CPU = torch.device("cpu")
RUNG = 320


class InThread:
    """Evaluates in this process; `before` is called with each snapshot and may raise or wait."""

    num_cpus = 2.0
    num_gpus = 0.5

    def __init__(self, before: Callable[[Snapshot], None] = lambda snapshot: None) -> None:
        self.before, self.asked = before, list[int]()
        self.cache = DataCache()

    def evaluate(self, snapshot: Snapshot) -> Evaluation:
        self.asked.append(snapshot.images)
        self.before(snapshot)
        return evaluate_snapshot(snapshot, device=CPU, cache=self.cache)

    def cancel(self) -> None:
        return


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("beside")


def _job(folder: Path, trial_id: str, **overrides: object) -> TrialJob:
    config = tiny_config(
        folder, probe__every_images=64, probe__beside={"cpus": 1.0}, train__images=480, **overrides
    )
    return TrialJob(
        trial_id=trial_id,
        config=config,
        shards_uri=prepare_data(config).uri,
        run_uri=str(folder / "runs/s"),
        rungs_images=(RUNG,),
    )


def _run(
    job: TrialJob, evaluator: InThread | None, reporter: ListReporter | None = None
) -> list[TrialReport]:
    reporter = reporter or ListReporter()
    Run(job, reporter, Rank(), evaluator=evaluator).train()
    return reporter.reports


def _curve(reports: list[TrialReport], *kinds: str) -> dict[int, dict[str, float]]:
    """The rows' metrics of some kinds by images, the first of each name."""
    found: dict[int, dict[str, float]] = {}
    for row in (row for report in reports for row in report.rows):
        named = {name: value for name, value in row.metrics.items() if name.startswith(kinds)}
        found[row.images] = named | found.get(row.images, {})
    return {images: metrics for images, metrics in sorted(found.items()) if metrics}


@pytest.fixture(scope="module")
def inline(folder: Path) -> list[TrialReport]:
    return _run(_job(folder, "inline"), None)


def test_every_figure_and_the_weights_are_those_of_a_run_that_stops_for_its_probes(
    folder: Path, inline: list[TrialReport]
) -> None:
    evaluator = InThread()
    reports = _run(_job(folder, "beside"), evaluator)
    assert evaluator.asked == [
        64,
        128,
        192,
        256,
        384,
        448,
    ]  # a rung and the end are measured by the run itself
    assert _curve(reports, "probe/", "health/") == _curve(inline, "probe/", "health/")
    ours, theirs = (load_latest(checkpoint_store(_job(folder, name))) for name in ("beside", "inline"))
    assert ours is not None
    assert theirs is not None
    assert all(torch.equal(value, theirs.tensors[name]) for name, value in ours.tensors.items())


def test_training_goes_on_while_an_evaluation_runs_and_the_rung_waits_for_it(folder: Path) -> None:
    reached = threading.Event()

    class Telling(ListReporter):
        def report(self, report: TrialReport) -> Decision:
            if report.images >= 128:
                reached.set()
            return super().report(report)

    def hold_the_first(snapshot: Snapshot) -> None:
        if snapshot.images == 64:
            assert reached.wait(600)

    job = replace(_job(folder, "held", train__checkpoint_every_images=1000), rungs_images=(256,))
    reports = _run(job, InThread(hold_the_first), Telling())
    stops = [report.images for report in reports if 64 in [row.images for row in report.rows]]
    assert stops[0] == 64
    assert 128 <= stops[1] <= 256
    rung = next(report for report in reports if report.rung is not None)
    at_rung = [report for report in reports if report.images <= rung.images]
    assert [images for images, row in _curve(at_rung, "probe/linear/mean").items()] == [0, 64, 128, 192, 256]
    assert "probe/linear/mean" in rung.rows[-1].metrics


def test_what_an_evaluation_holds_is_charged_apart(folder: Path) -> None:
    reports = _run(_job(folder, "charged"), InThread())
    for images, metrics in _curve(reports, "evaluation/").items():
        assert images in (64, 128, 192, 256, 384, 448)
        assert metrics["evaluation/cpu_core_s"] == pytest.approx(4 * metrics["evaluation/gpu_s"])
        assert metrics["evaluation/gpu_s"] > 0


def test_an_evaluation_that_fails_once_is_tried_again(folder: Path, inline: list[TrialReport]) -> None:
    def fail_first(snapshot: Snapshot) -> None:
        if snapshot.images == 128 and evaluator.asked.count(128) == 1:
            raise RuntimeError("the node went away")

    evaluator = InThread(fail_first)
    reports = _run(_job(folder, "again"), evaluator)
    assert evaluator.asked.count(128) == 2
    assert _curve(reports, "probe/") == _curve(inline, "probe/")


def test_one_that_always_fails_is_noted_as_missing_and_training_goes_on(
    folder: Path, inline: list[TrialReport]
) -> None:
    def fail(snapshot: Snapshot) -> None:
        if snapshot.images == 128:
            raise RuntimeError("the node went away")

    evaluator = InThread(fail)
    reports = _run(_job(folder, "missing", probe__max_failures=2), evaluator)
    assert evaluator.asked.count(128) == 3
    assert [images for images, row in _curve(reports, MISSING).items()] == [128]
    expected = {images: row for images, row in _curve(inline, "probe/").items() if images != 128}
    assert _curve(reports, "probe/") == expected
    assert reports[-1].final


def test_without_a_place_the_run_measures_by_itself(folder: Path, inline: list[TrialReport]) -> None:
    def refuse(snapshot: Snapshot) -> None:
        raise NoRoomForEvaluationError("no room")

    evaluator = InThread(refuse)
    reports = _run(_job(folder, "crowded"), evaluator)
    measured, missing = _curve(reports, "probe/"), _curve(reports, MISSING)
    assert set(missing) == set(evaluator.asked)
    assert {*measured, *missing} == {0, 64, 128, 192, 256, RUNG, 384, 448, 480}
    assert max(missing) < RUNG  # at the first point that waits for evaluations, the refusal is known


def test_a_run_that_dies_loses_no_evaluation_of_a_checkpoint(folder: Path, inline: list[TrialReport]) -> None:
    """The process dies while its checkpoint's own weights are being evaluated; the next one does it again."""

    class Dying(ListReporter):
        def report(self, report: TrialReport) -> Decision:
            if report.images > 192:
                raise KeyboardInterrupt
            return super().report(report)

    def never_ends(snapshot: Snapshot) -> None:
        if snapshot.images == 192:
            died.wait(600)
            raise RuntimeError("its process died")

    died = threading.Event()
    job = _job(folder, "dying", train__checkpoint_every_images=192)
    before = Dying()

    class Ending(InThread):
        def cancel(self) -> None:
            died.set()

    with pytest.raises(KeyboardInterrupt):
        Run(job, before, Rank(), evaluator=Ending(never_ends)).train()
    found = load_latest(checkpoint_store(job))
    assert found is not None
    assert found.meta["evaluating"] == [192]
    assert 192 not in _curve(before.reports, "probe/")
    after = _run(job, InThread())
    assert _curve([*before.reports, *after], "probe/") == _curve(inline, "probe/")


def test_a_checkpoint_with_an_open_evaluation_may_go_on_without_room_for_it(
    folder: Path, inline: list[TrialReport]
) -> None:
    job = _job(folder, "narrower", train__checkpoint_every_images=192)
    before = _run(job, InThread(), ListReporter(stop_at_images=192))
    after = _run(job, None)
    assert _curve([*before, *after], "probe/") == _curve(inline, "probe/")


def test_a_stopped_run_delivers_what_is_still_being_evaluated(folder: Path) -> None:
    reports = _run(_job(folder, "stopped"), InThread(), ListReporter(stop_at_images=128))
    assert [images for images in _curve(reports, "probe/")] == [0, 64, 128]
    assert [report.rung for report in reports] == [None] * len(reports)


def test_results_come_in_the_order_of_their_images() -> None:
    allowed = threading.Semaphore(0)

    class Slow(InThread):
        def evaluate(self, snapshot: Snapshot) -> Evaluation:
            allowed.acquire()
            return Evaluation(metrics={"probe/linear/mean": float(snapshot.images)})

    evaluations = Evaluations(Slow(), max_failures=0)
    config = default_config()
    starter = threading.Thread(
        target=lambda: [
            evaluations.start(
                Snapshot(
                    config=config, shards_uri="", images=images, timestamp_ms=0, weights={"w": np.zeros(1)}
                )
            )
            for images in (1, 2, 3)
        ]
    )
    starter.start()
    assert evaluations.take() == []
    for _ in range(3):
        allowed.release()
    starter.join()
    found = evaluations.take(wait=True)
    evaluations.close()
    assert [result.row.images for result in found] == [1, 2, 3]
