"""What each method of a sweep gained over the encoder that it started from, by label, with its cost. Pure.

A gain is a trial's probe less that of the untrained encoder of its own seed, so what a seed's initial weights are worth
drops out. Its interval is Student's over the method's own seeds: gains of other methods do not narrow it, since
methods differ in how much a seed changes them. Intervals are for one method and label each, uncorrected.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from orchestrator.protocol.intervals import Interval
from orchestrator.protocol.metrics import MEAN, PROBE_KINDS, UNTRAINED, ProbeKind, by_label
from orchestrator.protocol.writing import FLAT
from orchestrator.report.statistics.noise import difference_around, interval_factor
from orchestrator.report.statistics.trials import Geometry, TrialSummary


@dataclass(frozen=True, kw_only=True)
class LabelGain:
    """One label's gain in points, mean of the seeds, with its interval, which is infinite with one seed.

    `accuracy` and `untrained` are the means of the two in per cent.
    """

    accuracy: float
    untrained: float
    points: float
    interval: Interval = field(metadata=FLAT)

    @property
    def is_shown(self) -> bool:
        """Whether the interval lies above 0."""
        return self.interval.low > 0


@dataclass(frozen=True, kw_only=True)
class MethodGain:
    """The gains of one method by probe and label, and what a trial of it cost.

    `mean` is a label too where there are several. Hours are GPU hours, or CPU core hours where no GPU was used.
    """

    name: str
    seeds: tuple[int, ...]
    trial_ids: tuple[str, ...]
    images: int
    gains: Mapping[ProbeKind, Mapping[str, LabelGain]]
    flops_per_image: float
    device_hours: float

    @property
    def shown(self) -> tuple[str, ...]:
        """Labels on which a gain is shown, by either probe; their mean is none."""
        names = (
            label
            for probe in PROBE_KINDS
            for label, gain in self.gains[probe].items()
            if label != MEAN and gain.is_shown
        )
        return tuple(dict.fromkeys(names))


def method_gains(geometries: Sequence[Geometry]) -> list[MethodGain]:
    """The gains of every method whose trials ended, in the order given."""
    return [
        MethodGain(
            name=each.name,
            seeds=tuple(trial.seed for trial in each.trials),
            trial_ids=tuple(trial.trial_id for trial in each.trials),
            images=max(trial.images for trial in each.trials),
            gains={probe: _gains(each.trials, probe) for probe in PROBE_KINDS},
            flops_per_image=statistics.fmean(trial.flops_per_image for trial in each.trials),
            device_hours=each.share.counted,
        )
        for each in geometries
    ]


def _gains(trials: Sequence[TrialSummary], probe: ProbeKind) -> dict[str, LabelGain]:
    """The gain on each label that every seed measured before and after."""
    found = [by_label(trial.metrics, probe) for trial in trials]
    untrained = [by_label(trial.metrics, probe, of=UNTRAINED) for trial in trials]
    measured = [label for label in sorted(found[0]) if all(label in each for each in (*found, *untrained))]
    if len(measured) == 2 and MEAN in measured:  # of one label, which it repeats
        measured.remove(MEAN)
    return {
        label: _gain([each[label] for each in found], [each[label] for each in untrained])
        for label in measured
    }


def _gain(accuracies: Sequence[float], untrained: Sequence[float]) -> LabelGain:
    gains = [after - before for after, before in zip(accuracies, untrained, strict=True)]
    points, half = statistics.fmean(gains), math.inf
    if len(gains) > 1:
        half = interval_factor(len(gains) - 1) * statistics.stdev(gains) / math.sqrt(len(gains))
    return LabelGain(
        accuracy=statistics.fmean(accuracies),
        untrained=statistics.fmean(untrained),
        points=points,
        interval=difference_around(points, half),
    )
