"""Evaluations as Ray tasks: their own process, which may die, and a sweep whose figures are those without them."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from ray.exceptions import RayError
from tiny_sweeps import Remembering, tiny_config

from orchestrator.config import default_config
from orchestrator.protocol.metrics import MISSING
from orchestrator.sweep.core.record import SweepRecord
from orchestrator.sweep.run.driver import SweepRequest, run_sweep
from orchestrator.train.evaluate.asynchronous import Evaluations, NoRoomForEvaluationError, Snapshot
from orchestrator.train.evaluate.evaluation import Evaluation
from orchestrator.train.evaluate.evaluator import RayEvaluator

pytestmark = pytest.mark.ray
SNAPSHOT = Snapshot(config=default_config(), shards_uri="", images=64, timestamp_ms=1, weights={})


@pytest.mark.usefixtures("cluster")
def test_a_task_whose_process_dies_is_run_again_and_one_that_always_dies_is_missing(tmp_path: Path) -> None:
    marks = str(tmp_path)

    def die_once(snapshot: Snapshot, num_threads: int) -> Evaluation:
        if not os.listdir(marks):
            Path(marks, "died").touch()
            os._exit(1)
        return Evaluation(metrics={"probe/linear/mean": float(num_threads), "time/probe_s": 3.0})

    def always_die(snapshot: Snapshot, num_threads: int) -> Evaluation:
        os._exit(1)

    with pytest.raises(RayError):
        RayEvaluator(num_cpus=1.0, num_gpus=0.0, function=always_die).evaluate(SNAPSHOT)
    found = []
    for function in (die_once, always_die):
        evaluations = Evaluations(RayEvaluator(num_cpus=0.5, num_gpus=0.0, function=function), max_failures=1)
        evaluations.start(SNAPSHOT)
        found += evaluations.take(wait=True)
        evaluations.close()
    first, second = (result.row.metrics for result in found)
    assert (first["probe/linear/mean"], first["evaluation/cpu_core_s"] > 1.5) == (1.0, True)
    assert (second[MISSING], second["evaluation/cpu_core_s"] > 0) == (1.0, True)


@pytest.mark.usefixtures("cluster")
def test_resources_that_the_cluster_has_not_are_no_place() -> None:
    with pytest.raises(NoRoomForEvaluationError, match=r"no 64 CPUs and 0 GPUs gave a result within 0\.1 s"):
        RayEvaluator(num_cpus=64.0, num_gpus=0.0, patience_s=0.1).evaluate(SNAPSHOT)


@pytest.mark.slow
@pytest.mark.usefixtures("cluster", "migrated_runs")
def test_a_sweep_with_evaluations_beside_measures_and_decides_as_one_without(tmp_path: Path) -> None:
    def swept(sweep_id: str, **overrides: object) -> SweepRecord:
        config = tiny_config(
            tmp_path,
            probe__every_images=96,
            sweep__space={"optimizer.learning_rate": {"choices": [0.001, 1.0]}},
            sweep__asha={"first_rung_images": 320, "reduction_factor": 2},
            sweep__max_concurrent_trials=1,
            **overrides,
        )
        return run_sweep(SweepRequest(config=config, observer=Remembering(), sweep_id=sweep_id))

    def curves(record: SweepRecord) -> dict[str, dict[int, dict[str, float]]]:
        return {
            trial.trial_id: {
                images: {name: value for name, value in row.items() if name.startswith("probe/")}
                for images, row in sorted(trial.history.items())
            }
            for trial in record.in_order()
        }

    inline, beside = swept("inline"), swept("beside", probe__beside={"cpus": 1.0})
    assert curves(beside) == curves(inline)
    assert [trial.state for trial in beside.in_order()] == [trial.state for trial in inline.in_order()]
    assert [trial.rungs for trial in beside.in_order()] == [trial.rungs for trial in inline.in_order()]
    assert all(trial.async_cpu_core_s > 0 for trial in beside.in_order())
    assert all(trial.async_cpu_core_s == 0 for trial in inline.in_order())
