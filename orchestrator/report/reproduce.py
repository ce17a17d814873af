"""Running a trial again and saying whether it came out the same. Pure: takes records, gives plain values."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal

from orchestrator.protocol.metrics import LOSS, PROBE
from orchestrator.report.statistics import EQUIVALENT_POINTS
from orchestrator.sweep.core import SweepRecord, TrialRecord
from orchestrator.text import align

_SHOWN = (PROBE, LOSS)

Sameness = Literal["identical", "within noise", "different", "not comparable"]


@dataclass(frozen=True, kw_only=True)
class MetricPair:
    """One metric of a run and of its repetition."""

    name: str
    recorded: float
    again: float


@dataclass(frozen=True, kw_only=True)
class Reproduction:
    """What came of running a trial again."""

    trial_id: str
    sameness: Sameness
    pairs: tuple[MetricPair, ...]
    changes: tuple[str, ...]

    def text(self) -> str:
        """A table and a sentence."""
        rows = [["metric", "recorded", "again", "difference"]]
        rows += [
            [pair.name, f"{pair.recorded:.6g}", f"{pair.again:.6g}", f"{pair.again - pair.recorded:+.3g}"]
            for pair in self.pairs
        ]
        sentence = {
            "identical": "Reproduced: every figure is identical.",
            "within noise": "Reproduced within noise: the probe accuracies agree, the bits do not.",
            "different": f"Not reproduced: probe accuracies differ by more than {EQUIVALENT_POINTS:g} point.",
            "not comparable": "Nothing to compare: one of the two has no final figures.",
        }[self.sameness]
        return "\n".join([align(rows), "", *(f"changed: {each}" for each in self.changes), sentence])

    def to_json(self) -> dict[str, Any]:
        """As a JSON-able dictionary."""
        return asdict(self)


def compare_outcomes(
    recorded: TrialRecord, again: TrialRecord, *, then: SweepRecord, now: SweepRecord
) -> Reproduction:
    """Compare the final figures of a trial with those of its repetition."""
    shared = sorted(name for name in recorded.metrics if name in again.metrics and name.startswith(_SHOWN))
    pairs = tuple(
        MetricPair(name=name, recorded=recorded.metrics[name], again=again.metrics[name]) for name in shared
    )
    return Reproduction(
        trial_id=recorded.trial_id,
        sameness=_sameness(pairs, recorded.images == again.images),
        pairs=pairs,
        changes=tuple(environment_changes(then, now)),
    )


def _sameness(pairs: tuple[MetricPair, ...], same_images: bool) -> Sameness:
    known = [pair for pair in pairs if math.isfinite(pair.recorded) and math.isfinite(pair.again)]
    if not known or not same_images:
        return "not comparable"
    if all(pair.recorded == pair.again for pair in known):
        return "identical"
    probes = [pair for pair in known if pair.name.startswith(PROBE)]
    close = all(abs(pair.recorded - pair.again) <= EQUIVALENT_POINTS for pair in probes)
    return "within noise" if close else "different"


def environment_changes(then: SweepRecord, now: SweepRecord) -> list[str]:
    """What is not as it was: data, Python, packages, machine."""
    before, after = _facts(then), _facts(now)
    return [
        f"{name} was {before[name]}, is {after[name]}"
        for name in before
        if name in after and before[name] != after[name]
    ]


def _facts(record: SweepRecord) -> dict[str, str]:
    facts: dict[str, str] = {"data digest": str(record.data.get("digest", ""))}
    environment: Mapping[str, Any] = record.environment
    for key in ("python", "platform"):
        if key in environment:
            facts[key] = str(environment[key])
    facts.update({name: str(value) for name, value in environment.get("packages", {}).items()})
    return facts
