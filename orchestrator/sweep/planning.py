"""What a sweep would do, without doing it: `--dry-run` and `orchestrator plan`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from orchestrator.config.models import RunConfig
from orchestrator.sweep.scheduler import rungs_images
from orchestrator.sweep.space import SweepPlan, plan_sweep
from orchestrator.train.plan import plan_run


@dataclass(frozen=True, kw_only=True)
class PlanDescription:
    """A sweep's plan in words and in JSON."""

    config: RunConfig
    plan: SweepPlan

    def to_json(self) -> dict[str, Any]:
        """As a JSON-able dictionary."""
        return {
            "name": self.config.name,
            "search": self.config.sweep.search,
            "num_trials": self._num_trials(),
            "trials": [
                {"trial_id": trial.trial_id, "point": trial.point, "seed": trial.seed}
                for trial in self.plan.trials
            ],
            "images_a_trial": self._images(),
            "rungs_images": list(rungs_images(self.config.sweep.asha, self.config.train.images)),
            "notes": list(self.plan.notes),
        }

    def text(self) -> str:
        """As lines for a person."""
        sweep, train = self.config.sweep, self.config.train
        rungs = rungs_images(sweep.asha, train.images)
        lines = [
            f"{self.config.name}: {self._num_trials()} trials by {sweep.search} search over "
            + (", ".join(sweep.space) or "nothing"),
            f"data: {self.config.data.source}",
            f"each trial: {self._images():,} images in batches of {train.batch_size}, "
            f"{train.num_workers} workers with {train.cpus_per_worker:g} CPUs and {train.gpus_per_worker} GPUs",
            f"ranked by {sweep.metric}; "
            + (
                f"halved at {', '.join(f'{rung:,}' for rung in rungs)} images"
                if rungs
                else "no trial is stopped early"
            ),
            *(f"{trial.index:03d}  {trial.trial_id}  {trial.name}" for trial in self.plan.trials),
            *(f"note: {note}" for note in self.plan.notes),
        ]
        return "\n".join(lines)

    def _num_trials(self) -> int:
        return len(self.plan.trials) or (self.config.sweep.num_trials or 1) * len(self.config.sweep.seeds)

    def _images(self) -> int:
        plan = plan_run(self.config)
        return plan.images_at(plan.total_steps)


def describe_plan(config: RunConfig) -> PlanDescription:
    """Plan a sweep and stop there."""
    return PlanDescription(config=config, plan=plan_sweep(config))
