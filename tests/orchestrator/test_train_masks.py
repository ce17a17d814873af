"""What training logs of its masks is what the audit predicted before it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from tiny_sweeps import tiny_config

from orchestrator.data import prepare_data
from orchestrator.protocol.jobs import TrialJob
from orchestrator.sweep.foresight.geometries import audit_sweep
from orchestrator.sweep.space.points import plan_sweep
from orchestrator.train.distributed import Rank
from orchestrator.train.loop.run import Run
from orchestrator.train.reporting import ListReporter

SETTINGS: list[dict[str, Any]] = [
    {"masks__context_keep": "all", "masks__num_context_blocks": 2},
    {"masks__sampler": "reference"},
]


@pytest.mark.parametrize("overrides", SETTINGS, ids=["exact", "reference"])
def test_training_logs_the_masks_that_the_audit_predicts(tmp_path: Path, overrides: dict[str, Any]) -> None:
    config = tiny_config(tmp_path, train__images=2048, train__checkpoint_every_images=2048, **overrides)
    reporter = ListReporter()
    job = TrialJob(
        trial_id="t", config=config, shards_uri=prepare_data(config).uri, run_uri=str(tmp_path / "runs")
    )
    Run(job, reporter, Rank()).train()
    (geometry,) = audit_sweep(config, plan_sweep(config)).geometries
    rows = [
        row for report in reporter.reports for row in report.rows if "masks/context_patches" in row.metrics
    ]
    steps = [
        now.images - before for now, before in zip(rows, [0, *(row.images for row in rows)], strict=False)
    ]
    for name, predicted in geometry.audit.metrics.items():
        logged = sum(row.metrics[name] * count for row, count in zip(rows, steps, strict=True)) / sum(steps)
        whole = geometry.audit.grid.num_patches if name.endswith("_patches") else 1
        assert logged / whole == pytest.approx(predicted / whole, abs=0.01), name
