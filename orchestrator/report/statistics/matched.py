"""Paired comparisons of geometries at equal compute: equal images, equal FLOPs, equal device hours.

Pure. At each budget every run is read where it had spent that much, between the two probes around it, so the dearer of
two is cut before its end; its learning rate had not come down by then, which `MatchedResult.cut` says. Equal images is
the main comparison and holds with 95 % over all pairs together; the other two together share another 5 %.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import combinations
from typing import Literal

from orchestrator.protocol.intervals import UNKNOWN, Interval
from orchestrator.protocol.writing import FLAT
from orchestrator.report.statistics.noise import (
    Noise,
    difference_around,
    difference_error,
    paired_variance,
    pool_differences,
)
from orchestrator.report.statistics.trials import Geometry, TrialSummary
from orchestrator.sweep.core import CONFIDENCE, critical_range
from orchestrator.text import counted

Budget = Literal["images", "FLOPs", "device hours"]
BUDGETS: tuple[Budget, ...] = ("images", "FLOPs", "device hours")
EQUIVALENT_POINTS = 1.0
"""Two geometries whose difference is surely smaller than this are called tied: nobody would choose between them."""
MANY_SEEDS = 50
_WIDEST_GAP = 0.6
_SLACK = 1e-6

Word = Literal["beats", "tied", "cannot say", "not measured"]


@dataclass(frozen=True, kw_only=True)
class MatchedResult:
    """One pair at one budget; the difference is first less second, in points, with an interval.

    Intervals of one budget hold together over all pairs, with 95 % at equal images and with 97.5 % at the others.

    `word` is "beats" (the one named by `winner`), "tied" (surely within a point), "cannot say", or "not measured"
    (no probes near the budget). `more_seeds` is how many further seeds each would settle it if the difference is
    what it seems; None when settled, over 50 or unknown.
    """

    first: str
    second: str
    budget: Budget
    at: float
    word: Word
    winner: str = ""
    difference: float = math.nan
    interval: Interval = field(default=UNKNOWN, metadata=FLAT)
    more_seeds: int | None = None
    cut: str = ""
    """The geometry that was read before the end of its run."""
    num_compared: int = 2
    needs_images: bool = False
    """Whether the test set is what holds the interval open."""

    def sentence(self) -> str:
        """The result in words."""
        where = f"at equal {self.budget}"
        if self.word == "not measured":
            return (
                f"Not measured {where}: no probe near {_budget_text(self.budget, self.at)} "
                "(set probe.every_images)."
            )
        interval = self._difference()
        if self.word == "beats":
            loser = self.second if self.winner == self.first else self.first
            text = f"{self.winner} beats {loser} {where} ({interval})."
        elif self.word == "tied":
            text = f"{self.first} and {self.second} are tied {where}, within {EQUIVALENT_POINTS:g} point ({interval})."
        else:
            text = (
                f"Cannot say whether {self.first} beats {self.second} {where} ({interval}): {self._remedy()}."
            )
        if self.cut:
            text += f" {self.cut} was read at {_budget_text(self.budget, self.at)}, before its end."
        return text

    @property
    def subject(self) -> tuple[str, str]:
        """Of whom the sentence speaks, and against whom."""
        if self.word == "beats" and self.winner == self.second:
            return self.second, self.first
        return self.first, self.second

    def item(self) -> str:
        """The other one of the pair with its figures, as an item of a list of pairs of which the same is said."""
        text = self.subject[1]
        if self.word == "not measured":
            return text
        text += f" ({self._difference()}" + (f"; {self._remedy()})" if self.word == "cannot say" else ")")
        return text + (f"; {self.cut} read at {_budget_text(self.budget, self.at)}" if self.cut else "")

    def _difference(self) -> str:
        return f"{self.difference:+.1f} points, {self.interval.text('+.1f')}"

    def _remedy(self) -> str:
        if self.more_seeds is not None:
            return f"{counted(self.more_seeds, 'more seed')} each would"
        if self.needs_images:
            return "more test images (probe.test_images) would, together with more seeds"
        return f"it would take over {MANY_SEEDS} seeds each"


_SAID: Mapping[Word, str] = {
    "beats": "{who} beats, at equal {budgets}:",
    "tied": "{who} is tied, at equal {budgets} and within a point, with:",
    "cannot say": "At equal {budgets} it cannot be said whether {who} beats:",
    "not measured": "Not measured at equal {budgets} (set probe.every_images) is {who} against:",
}


def grouped_sentences(results: Sequence[MatchedResult]) -> list[str]:
    """The results in words; those of which the same is to be said stand together, in a list of their others."""
    budgets: dict[tuple[Word, str, str], list[MatchedResult]] = {}
    for each in results:
        budgets.setdefault((each.word, each.subject[0], each.item()), []).append(each)
    groups: dict[tuple[Word, str, str], list[MatchedResult]] = {}
    for (word, who, _), same in budgets.items():
        names = [each.budget for each in same]
        listed = ", ".join(names[:-1]) + " and " + names[-1] if len(names) > 1 else names[0]
        groups.setdefault((word, who, listed), []).append(same[0])
    return [
        group[0].sentence()
        if len(group) == 1 and listed == group[0].budget
        else "\n  ".join([_SAID[word].format(who=who, budgets=listed), *(f"{each.item()}" for each in group)])
        for (word, who, listed), group in groups.items()
    ]


def compare(
    geometries: Sequence[Geometry],
    metric: str,
    *,
    budgets: Sequence[Budget] = BUDGETS,
    against_best: bool = False,
    noise_from: Sequence[Geometry] = (),
) -> list[MatchedResult]:
    """Every pair of geometries at every budget, or the best with each other one.

    The correction is for all pairs in both cases, since the best is known only after looking. `noise_from` may name
    more geometries whose seeds tell of the noise.
    """
    pairs = [
        (first, second)
        for first, second in combinations(geometries, 2)
        if not against_best or first is geometries[0]
    ]
    pool = _Pool(geometries, noise_from or geometries)
    return [_compare(first, second, pool, metric, budget) for budget in budgets for first, second in pairs]


@dataclass(frozen=True, eq=False)
class _Pool:
    """The geometries that are compared, and those that the noise is taken from."""

    compared: Sequence[Geometry]
    noise_from: Sequence[Geometry]


def _compare(first: Geometry, second: Geometry, pool: _Pool, metric: str, budget: Budget) -> MatchedResult:
    ends = [min(_spent(trial, budget, trial.images) for trial in each.trials) for each in (first, second)]
    at = min(ends) if all(math.isfinite(end) and end > 0 for end in ends) else math.nan
    ours, theirs = _values_at(first, budget, at), _values_at(second, budget, at)
    common = {"first": first.name, "second": second.name, "budget": budget, "at": at}
    if ours is None or theirs is None:
        return MatchedResult(**common, word="not measured")  # type: ignore[arg-type]
    num_compared = len(pool.compared)  # all of them, measured here or not: the best was picked among all
    groups = [_values_at(each, budget, at) for each in pool.noise_from]
    noise = pool_differences([group for group in groups if group is not None])
    confidence = CONFIDENCE if budget == "images" else 1 - (1 - CONFIDENCE) / 2
    critical = critical_range(num_compared, noise.freedom, confidence=confidence)
    difference = _mean(ours) - _mean(theirs)
    half = critical * difference_error(first, second, noise, metric)
    floor = critical * math.sqrt(paired_variance(first, second, metric) or 0.0)
    needs_images = floor > max(abs(difference), EQUIVALENT_POINTS - abs(difference))
    word, winner = _judge(difference, half, first.name, second.name)
    can_say = word != "cannot say" or needs_images
    cut = "" if budget == "images" else _cut(first, second, ends, at)
    return MatchedResult(
        **common,  # type: ignore[arg-type]
        word=word,
        winner=winner,
        difference=difference,
        interval=difference_around(difference, half, confidence),
        more_seeds=None
        if can_say
        else _more_seeds(difference, noise, confidence, num_compared, first, second),
        needs_images=word == "cannot say" and needs_images,
        cut=cut,
        num_compared=num_compared,
    )


def _judge(difference: float, half: float, first: str, second: str) -> tuple[Word, str]:
    if abs(difference) > half:
        return "beats", first if difference > 0 else second
    return ("tied", "") if abs(difference) + half < EQUIVALENT_POINTS else ("cannot say", "")


def _more_seeds(
    difference: float,
    noise: Noise,
    confidence: float,
    num_compared: int,
    first: Geometry,
    second: Geometry,
) -> int | None:
    """Further seeds each after which the interval would leave out 0, or lie within a point: whichever is sooner."""
    here = min(len(first.trials), len(second.trials))
    unit = critical_range(num_compared, math.inf, confidence=confidence) * noise.seed_sd * math.sqrt(2)
    targets = [abs(difference), EQUIVALENT_POINTS - abs(difference)]
    needed = [math.floor((unit / target) ** 2) + 1 for target in targets if target > unit / 1e3]
    least = max(here + 1, min(needed, default=10**9))
    return least - here if least <= MANY_SEEDS else None


def _values_at(geometry: Geometry, budget: Budget, at: float) -> dict[int, float] | None:
    """The metric of each seed where it had spent a budget; None unless every seed can be read there."""
    if not math.isfinite(at):
        return None
    values = {trial.seed: _value_at(trial, budget, at) for trial in geometry.trials}
    return values if all(math.isfinite(value) for value in values.values()) else None


def _value_at(trial: TrialSummary, budget: Budget, at: float) -> float:
    """The metric between the probes around a budget; NaN past the end, or where they are too far apart."""
    points = sorted((_spent(trial, budget, images), value) for images, value in trial.curve.items())
    points = [(spent, value) for spent, value in points if math.isfinite(spent)]
    if not points or at > points[-1][0] * (1 + _SLACK):
        return math.nan
    after = next(i for i, (spent, _) in enumerate(points) if spent * (1 + _SLACK) >= at)
    spent, value = points[after]
    if after == 0 or abs(spent - at) <= _SLACK * max(1.0, at):
        return value if abs(spent - at) <= _SLACK * max(1.0, at) else math.nan
    earlier, earlier_value = points[after - 1]
    if spent - earlier > _WIDEST_GAP * at:
        return math.nan
    return earlier_value + (value - earlier_value) * (at - earlier) / (spent - earlier)


def _spent(trial: TrialSummary, budget: Budget, images: int) -> float:
    """What a trial had spent after so many images."""
    if budget == "images":
        return float(images)
    if budget == "FLOPs":
        return trial.flops.get(images, images * trial.flops_per_image)
    return trial.share_by_images.get(images, math.nan)


def _cut(first: Geometry, second: Geometry, ends: Sequence[float], at: float) -> str:
    for geometry, end in zip((first, second), ends, strict=True):
        if end > at * (1 + 1e-3):
            return geometry.name
    return ""


def _mean(values: Mapping[int, float]) -> float:
    return sum(values.values()) / len(values)


def _budget_text(budget: Budget, at: float) -> str:
    if not math.isfinite(at):
        return f"any {budget}"
    if budget == "images":
        return counted(round(at), "image")
    return f"{at:.3g} FLOPs" if budget == "FLOPs" else f"{at:.3g} device hours"
