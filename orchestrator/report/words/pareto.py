"""The geometries that nothing beats on both accuracy and device hours, in words and as JSON."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from orchestrator.report.words.sentences import cost_text
from orchestrator.report.words.verdict import GeometryResult


def pareto_front(ranking: Sequence[GeometryResult]) -> list[GeometryResult]:
    """Those that no other one equals or beats on both, by their means; cheapest first."""
    front: list[GeometryResult] = []
    for result in sorted(ranking, key=lambda each: (each.share.counted, -each.mean)):
        if not front or result.mean > front[-1].mean:
            front.append(result)
    return front


def pareto_lines(front: Sequence[GeometryResult], metric: str) -> list[str]:
    """A sentence and one line a geometry."""
    if not front:
        return []
    lines = [f"Pareto set ({metric} against hours a trial, by means; nothing is better on both):"]
    return lines + [
        f"  {each.mean:.1f} % ({each.interval.bounds()}) for {cost_text(each.share)}: {each.name}"
        for each in front
    ]


def pareto_json(front: Sequence[GeometryResult]) -> list[dict[str, Any]]:
    """As JSON-able dictionaries."""
    return [
        {
            "name": each.name,
            "point": each.point.to_json(),
            "mean": each.mean,
            "low": each.interval.low,
            "high": each.interval.high,
            **each.share.to_json(),
            "trial_ids": list(each.trial_ids),
        }
        for each in front
    ]
