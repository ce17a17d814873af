"""The geometry that a sweep recommends, its trial, its settings and its trained encoder.

The highest is recommended when it stands alone. Otherwise it is the cheapest of those that are tied with it, provided
that seeds have shown how large the noise is and that it costs notably less; nothing says then that another is better.
`best`, `train --from-best` and the registered model all take it from here.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from orchestrator.config import apply_overrides
from orchestrator.config.models import RunConfig
from orchestrator.errors import NotFoundError
from orchestrator.protocol.jobs import checkpoints_uri
from orchestrator.protocol.point import Point
from orchestrator.report.statistics import TrialSummary, taken_json
from orchestrator.report.words.pareto import pareto_json, pareto_lines
from orchestrator.report.words.sentences import cost_text
from orchestrator.report.words.summary import Summary
from orchestrator.report.words.verdict import GeometryResult, Verdict
from orchestrator.storage import open_store
from orchestrator.sweep.space import config_at
from orchestrator.tracking.base import parameter_text
from orchestrator.tracking.encoder_model import EncoderCard, encoder_files
from orchestrator.train.evaluate import ranked_encoder
from orchestrator.train.loop import TakenCheckpoint, take_checkpoint

Pick = Literal["recommended", "highest", "cheapest"]
MODEL_FOLDER = "model"


@dataclass(frozen=True, kw_only=True)
class Recommendation:
    """A geometry, the trial of it with the highest accuracy, and why it was taken."""

    sweep_id: str
    outcome: str
    result: GeometryResult
    trial: TrialSummary
    reason: str
    metric: str
    front: tuple[GeometryResult, ...] = ()
    """What nothing beats on both accuracy and hours, cheapest first."""
    is_trade_off: bool = False
    """Whether the sweep searched for that."""

    def text(self) -> str:
        """In words, with its settings as a sweep file writes them."""
        lines = [
            f"{self.result.name}",
            f"  {self.metric} {self.result.mean:.1f} % ({self.result.interval.text()}), "
            f"{cost_text(self.result.share)} a trial",
            f"  {self.reason}",
            "settings:" if len(self.trial.schedule) < 2 else "settings at its end:",
            *(f"  {key}: {parameter_text(value)}" for key, value in self._settings().items()),
            f"trials: {', '.join(self.result.trial_ids)} (highest: {self.trial.trial_id})",
            f"best checkpoint: {self.trial.probed.best_text()}",
            *(pareto_lines(self.front, self.metric) if self.is_trade_off else []),
        ]
        return "\n".join(lines)

    def _settings(self) -> Point:
        """The point's keys; of a member of a population as they were at its end."""
        return self.trial.schedule[-1].settings if self.trial.schedule else self.result.point

    def to_json(self) -> dict[str, Any]:
        """As a JSON-able dictionary."""
        return {
            "sweep_id": self.sweep_id,
            "outcome": self.outcome,
            "name": self.result.name,
            "point": self.result.point.to_json(),
            "metric": self.metric,
            "mean": self.result.mean,
            "low": self.result.interval.low,
            "high": self.result.interval.high,
            **self.result.share.to_json(),
            "trial_ids": list(self.result.trial_ids),
            "trial_id": self.trial.trial_id,
            "best_checkpoint": self.trial.probed.to_json(),
            "reason": self.reason,
            "pareto_set": pareto_json(self.front),
        }


def recommend(summary: Summary, pick: Pick = "recommended") -> Recommendation:
    """What a sweep recommends.

    Raises:
        NotFoundError: No trial finished.
    """
    verdict = summary.verdict
    if verdict.best is None or verdict.cheapest is None:
        raise NotFoundError(
            f"sweep {summary.sweep_id}: no trial finished, so there is no best one; `orchestrator resume` "
            "goes on with it"
        )
    result, reason = _picked(verdict, pick)
    if verdict.outcome == "no_gain":
        result = result if pick == "cheapest" else verdict.best
        reason = (
            "Nothing is recommended: even the highest is not shown to be better than its untrained encoder"
            + (
                ", and this is the highest."
                if result is verdict.best
                else ", and this is the cheapest tied with it."
            )
        )
    if verdict.outcome == "alone":
        reason = "It is the only one that finished: there was nothing to compare it with."
    trials = [trial for trial in summary.trials if trial.trial_id in result.trial_ids]
    return Recommendation(
        sweep_id=summary.sweep_id,
        outcome=verdict.outcome,
        result=result,
        trial=max(trials, key=lambda trial: trial.value),
        reason=reason,
        metric=summary.metric,
        front=tuple(summary.front()),
        is_trade_off=summary.is_trade_off,
    )


def _picked(verdict: Verdict, pick: Pick) -> tuple[GeometryResult, str]:
    """A geometry of a verdict that has one, and why."""
    highest, cheapest = verdict.tied[0], verdict.cheapest
    others = len(verdict.tied) - 1
    assert cheapest is not None
    if others == 0:
        return highest, "It stands above every other geometry beyond the noise."
    within = f"{others} {'other is' if others == 1 else 'others are'} within its noise"
    if pick == "cheapest":
        return cheapest, f"It is the cheapest of the {others + 1} that are tied with the highest."
    if pick == "highest":
        return highest, f"It is the highest; {within}."
    if verdict.noise is None or verdict.noise.assumed:
        return highest, f"It is the highest; {within}, which is assumed: every geometry ran with one seed."
    if not verdict.saves:
        return highest, f"It is the highest; {within}, and none of them costs notably less."
    return cheapest, f"It is the cheapest of the {others + 1} that are tied with the highest."


def trial_config(config: RunConfig, point: Point, seed: int) -> RunConfig:
    """The configuration of one trial, to be run alone.

    Raises:
        ConfigError: The point no longer keeps every rule.
    """
    alone: dict[str, Any] = {
        "sweep.space": {},
        "sweep.points": [],
        "sweep.search": "grid",
        "sweep.num_trials": None,
        "sweep.seeds": (seed,),
        "sweep.asha": None,
        "sweep.pbt": None,
        "sweep.trade_off": None,
        "sweep.warm_start": None,
    }
    return apply_overrides(config, {**point, "train.seed": seed, **alone})


def recommended_checkpoint(
    config: RunConfig, recommendation: Recommendation, uri: str
) -> TakenCheckpoint | None:
    """The best checkpoint of the recommended trial, or its newest where none is kept; None when it has neither."""
    store = open_store(checkpoints_uri(uri, recommendation.trial.trial_id), config.storage)
    try:
        return take_checkpoint(store)
    except NotFoundError:
        return None


def model_files(
    config: RunConfig, recommendation: Recommendation, taken: TakenCheckpoint
) -> dict[str, bytes]:
    """The encoder of the recommended trial that its probes measure, out of one of its checkpoints."""
    trial, part = recommendation.trial, ranked_encoder(config)
    run = config_at(config, trial.point, trial.seed)
    card = EncoderCard(
        encoder=run.encoder,
        mean=run.data.mean,
        std=run.data.std,
        origin={
            "sweep_id": recommendation.sweep_id,
            "trial_id": trial.trial_id,
            "seed": trial.seed,
            "point": trial.point.to_json(),
            **({"schedule": [each.to_json() for each in trial.schedule]} if trial.schedule else {}),
            "images": trial.images,
            "checkpoint": taken_json(trial.probed, taken),
            "encoder": part,
            "metric": recommendation.metric,
            "value": trial.value,
            "accuracies": dict(trial.accuracies),
            "outcome": recommendation.outcome,
            "reason": recommendation.reason,
        },
    )
    files = encoder_files(card, taken.checkpoint.tensors, part)
    return {f"{MODEL_FOLDER}/encoder/{name}": data for name, data in files.items()}
