"""What the report knows of a trial and of a geometry: plain values, cut out of the sweep's record."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from orchestrator.config.models import RunConfig
from orchestrator.protocol.hours import ShareHours, WholeHours
from orchestrator.protocol.metrics import HEALTH, MEAN, PIXELS, PROBE, UNTRAINED, baseline_metric, by_label
from orchestrator.protocol.point import Point
from orchestrator.report.statistics.checkpoints import ProbeCurve, probe_curve
from orchestrator.report.statistics.compute import FlopsCounter
from orchestrator.sweep.core import Stretch, SweepRecord, TrialRecord, schedule_of
from orchestrator.sweep.space import listed_point

State = Literal["pending", "running", "finished", "stopped", "failed"]
Hits = NDArray[np.bool_]


@dataclass(frozen=True, kw_only=True, eq=False)
class TrialSummary:
    """One trial; accuracies are in per cent, `value` is the ranking metric (NaN when it was never measured).

    `hits` tells for each label which test images the linear probe got right; it may be empty. `untrained`
    and `pixels` are the baselines by label, `untrained_value` the ranking metric of the untrained encoder.
    `curve` is the ranking metric over images seen, `hours` the part of `share` that was held until then (GPU hours, or
    CPU core hours without a GPU); `health` holds the label-free metrics by images.
    """

    trial_id: str
    name: str
    point: Point
    seed: int
    state: State
    value: float
    images: int
    total_images: int
    accuracies: Mapping[str, float] = field(default_factory=dict)
    hits: Mapping[str, Hits] = field(default_factory=dict)
    untrained: Mapping[str, float] = field(default_factory=dict)
    pixels: Mapping[str, float] = field(default_factory=dict)
    untrained_value: float = math.nan
    whole: WholeHours = field(default_factory=WholeHours)
    share: ShareHours = field(default_factory=ShareHours)
    reason: str = ""
    curve: Mapping[int, float] = field(default_factory=dict)
    metrics: Mapping[str, float] = field(default_factory=dict)
    share_by_images: Mapping[int, float] = field(default_factory=dict)
    health: Mapping[int, Mapping[str, float]] = field(default_factory=dict)
    flops_per_image: float = math.nan
    flops: Mapping[int, float] = field(default_factory=dict)
    """Of a member of a population, which changes what an image costs: FLOPs spent by images seen."""
    num_attempts: int = 1
    label: str = ""
    published: float = math.nan
    probed: ProbeCurve = field(default_factory=ProbeCurve)
    """The probes since warm-up, and the best checkpoint, which is picked from them."""
    schedule: tuple[Stretch, ...] = ()
    """Of a member of a population: whose weights it has, and under which settings they were trained."""

    @property
    def title(self) -> str:
        """What the trial's point is called: its listed name, or its values."""
        return self.label or self.point.words

    @property
    def comparable(self) -> bool:
        """Whether the trial ran to its end and was measured."""
        return self.state == "finished" and math.isfinite(self.value)


@dataclass(frozen=True, kw_only=True, eq=False)
class Geometry:
    """The finished trials of one point of the search space, one for each seed."""

    name: str
    point: Point
    trials: tuple[TrialSummary, ...]

    @property
    def mean(self) -> float:
        """The ranking metric, averaged over the seeds."""
        return sum(trial.value for trial in self.trials) / len(self.trials)

    @property
    def share(self) -> ShareHours:
        """Device hours a trial."""
        return ShareHours.mean([trial.share for trial in self.trials])

    def label_mean(self, source: Literal["accuracies", "untrained", "pixels"], label: str) -> float:
        """One label's accuracy over the seeds that measured it; NaN when none did."""
        values = [getattr(trial, source)[label] for trial in self.trials if label in getattr(trial, source)]
        return sum(values) / len(values) if values else math.nan


def group_geometries(trials: Sequence[TrialSummary]) -> list[Geometry]:
    """The geometries of the comparable trials, best mean first."""
    groups: dict[Point, list[TrialSummary]] = {}
    for trial in trials:
        if trial.comparable:
            groups.setdefault(trial.point, []).append(trial)
    geometries = [
        Geometry(name=group[0].title, point=group[0].point, trials=tuple(group)) for group in groups.values()
    ]
    return sorted(geometries, key=lambda geometry: -geometry.mean)


def trial_summaries(config: RunConfig, record: SweepRecord) -> list[TrialSummary]:
    """The trials of a sweep in the order they were planned."""
    flops = FlopsCounter(config)
    return [_summary(config, record, trial, flops) for trial in record.in_order()]


def _summary(config: RunConfig, record: SweepRecord, trial: TrialRecord, flops: FlopsCounter) -> TrialSummary:
    metric = config.sweep.metric
    curve = {images: row[metric] for images, row in sorted(trial.history.items()) if metric in row}
    listed = listed_point(config, trial.point)
    hours = _hours_by_images(trial)
    start_hours = hours.get(0, 0.0)
    spent = flops.spent(trial) if trial.takeovers else {}
    per_image = spent[max(spent)] / max(spent) if spent else flops.per_image(trial.point, trial.metrics)
    return TrialSummary(
        trial_id=trial.trial_id,
        name=trial.name or trial.trial_id,
        point=trial.point,
        seed=trial.seed,
        state=trial.state,
        value=trial.metrics.get(metric, math.nan),
        images=trial.images,
        total_images=trial.total_images,
        accuracies=_labels(trial.metrics),
        hits={label: _hits(text, config.probe.test_images) for label, text in trial.correct.items()},
        untrained=_labels(trial.metrics, of=UNTRAINED),
        pixels=_labels(trial.metrics, of=PIXELS),
        untrained_value=trial.metrics.get(baseline_metric(metric), math.nan),
        whole=trial.hours,
        share=trial.hours.share_after(start_hours),
        reason=trial.reason,
        curve=curve,
        metrics=dict(trial.metrics),
        share_by_images={images: spent - start_hours for images, spent in hours.items()},
        health={
            images: {key: value for key, value in row.items() if key.startswith(HEALTH)}
            for images, row in sorted(trial.history.items())
            if any(key.startswith(HEALTH) for key in row)
        },
        flops_per_image=per_image,
        flops=spent,
        num_attempts=len(trial.attempts),
        label=_label(config, trial),
        published=math.nan if listed is None or listed.published is None else listed.published,
        probed=probe_curve(config, trial),
        schedule=schedule_of(record, trial.trial_id) if config.sweep.pbt is not None else (),
    )


def _label(config: RunConfig, trial: TrialRecord) -> str:
    """What a trial is called where its point does not say it."""
    if config.sweep.pbt is not None:
        return f"member {trial.index:03d}, begun with {trial.point.words}"
    listed = listed_point(config, trial.point)
    return "" if listed is None else listed.name


def _hours_by_images(trial: TrialRecord) -> dict[int, float]:
    """Device hours that a trial had held at every row: every attempt counts, lost or not."""
    held = {images: trial.hours_until(stamp / 1000) for images, stamp in trial.timestamps_ms.items()}
    uses_gpus = trial.hours.has_gpus
    return {images: hours.gpu if uses_gpus else hours.cpu_core for images, hours in held.items()}


def _labels(metrics: Mapping[str, float], *, of: str = PROBE) -> dict[str, float]:
    return {label: value for label, value in by_label(metrics, "linear", of=of).items() if label != MEAN}


def _hits(text: str, num_images: int) -> Hits:
    """Unpack bits in hexadecimal; fewer test images than asked for leave at most seven padding zeros."""
    bits = np.unpackbits(np.frombuffer(bytes.fromhex(text), dtype=np.uint8))
    return bits[:num_images].astype(np.bool_)
