"""The summary of a sweep: a verdict, a table and the costs, as text, Markdown, CSV and JSON."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from orchestrator.config.models import RunConfig
from orchestrator.config.space import driven_keys
from orchestrator.protocol.hours import WholeHours
from orchestrator.protocol.point import value_words
from orchestrator.protocol.writing import plain_fields
from orchestrator.report.statistics import (
    Findings,
    MatchedResult,
    MethodGain,
    TrialSummary,
    compare,
    explore,
    group_geometries,
    method_gains,
    population_lines,
    trial_summaries,
)
from orchestrator.report.words.pareto import pareto_front, pareto_json, pareto_lines
from orchestrator.report.words.sentences import cost_text, verdict_lines
from orchestrator.report.words.terms import METHODS, POPULATION, Terms, terms_of
from orchestrator.report.words.verdict import GeometryResult, Verdict, judge
from orchestrator.sweep.core import SweepRecord, ledger_of
from orchestrator.text import align, counted, json_able


@dataclass(frozen=True, kw_only=True, eq=False)
class Summary:
    """A sweep in figures."""

    sweep_id: str
    state: str
    metric: str
    trials: tuple[TrialSummary, ...]
    verdict: Verdict
    hours: WholeHours
    """What its trials held."""
    seconds: float
    energy_kwh: float | None = None
    """kWh of the trials' GPUs; None when they are not known."""
    held: WholeHours = field(default_factory=WholeHours)
    """What the sweep's worker groups held, with and without a trial; 0 where they were not kept between trials."""
    findings: Findings | None = None
    matched: tuple[MatchedResult, ...] = ()
    """The best geometry against each other one at equal images, FLOPs and device hours."""
    gains: tuple[MethodGain, ...] = ()
    """What each method gained over its untrained encoder; empty where the sweep is not about methods."""
    published_source: str = ""
    is_trade_off: bool = False
    """Whether the sweep searched for accuracy against hours."""
    population: tuple[str, ...] = ()
    """What became of a population, in sentences; empty where the sweep is none."""
    driven_axes: tuple[str, ...] = ()
    """Keys that follow another axis, so that their effects are one."""

    def lines(self) -> list[str]:
        """The verdict in sentences."""
        return verdict_lines(self.verdict, self.findings, terms=self.terms)

    @property
    def terms(self) -> Terms:
        """What the sweep is about."""
        return POPULATION if self.population else terms_of(self.axes())

    def text(self) -> str:
        """Table, verdict and costs for a terminal."""
        parts = [
            align(self.rows()),
            "",
            *(f"- {line}" for line in self.lines()),
            *(["", *lines] if (lines := self.front_lines()) else []),
            *(["", *(f"- {line}" for line in self.population)] if self.population else []),
            *(["", *lines] if (lines := self.peak_lines()) else []),
            "",
            self.cost_line(),
            *([f"Published: {self.published_source}"] if self.published_source else []),
        ]
        return "\n".join(parts)

    def markdown(self) -> str:
        """The same as Markdown, verdict first: the note on the sweep's MLflow run."""
        lines = [f"# {self.sweep_id}", "", *(f"- {line}" for line in self.lines())]
        source = [f"Published: {self.published_source}", ""] if self.published_source else []
        front = [f"- {line.strip()}" for line in self.front_lines()]
        lines += ["", *front] if front else []
        lines += ["", *(f"- {line}" for line in self.population)] if self.population else []
        lines += ["", *peaks] if (peaks := self.peak_lines()) else []
        return "\n".join([*lines, "", self.cost_line(), "", *source, *_markdown_table(self.rows()), ""])

    def csv(self) -> str:
        """One line a trial with every metric's newest value."""
        keys = sorted({key for trial in self.trials for key in trial.metrics})
        axes = self.axes()
        buffer = io.StringIO()
        writer = csv.writer(buffer, lineterminator="\n")
        writer.writerow(
            [
                *("trial_id", "name", "state", "seed", *axes),
                *("published", "images", "gpu_hours", "cpu_core_hours", *keys),
            ]
        )
        for trial in self.trials:
            point = [value_words(trial.point.get(axis, "")) for axis in axes]
            published = trial.published if math.isfinite(trial.published) else ""
            costs = [published, trial.images, trial.share.gpu, trial.share.cpu_core]
            metrics = [trial.metrics.get(key, "") for key in keys]
            writer.writerow([trial.trial_id, trial.name, trial.state, trial.seed, *point, *costs, *metrics])
        return buffer.getvalue()

    def to_json(self) -> dict[str, Any]:
        """JSON-able: NaN and infinity become null."""
        verdict = {**plain_fields(self.verdict), "lines": self.lines()}
        cheapest = self.verdict.cheapest
        verdict["cheapest"] = None if cheapest is None else cheapest.name
        verdict["tied"] = [result.name for result in self.verdict.tied]
        trials = [
            {key: getattr(trial, key) for key in _TRIAL_KEYS}
            | trial.share.to_json()
            | {"gain": trial.value - trial.untrained_value, "best_checkpoint": trial.probed.to_json()}
            | {"peak": trial.probed.peak_text()}
            | ({"schedule": [each.to_json() for each in trial.schedule]} if trial.schedule else {})
            for trial in self.trials
        ]
        figures = {
            **self.hours.to_json(),
            "energy_kwh": self.energy_kwh,
            "held_gpu_hours": self.held.gpu,
            "held_cpu_core_hours": self.held.cpu_core,
            "seconds": self.seconds,
        }
        head: dict[str, Any] = {"sweep_id": self.sweep_id, "state": self.state, "metric": self.metric}
        head["published_source"] = self.published_source
        head |= {"population": list(self.population)} if self.population else {}
        extra = {
            "surface": None if self.findings is None else _surface_json(self.findings),
            "matched": [{**plain_fields(each), "sentence": each.sentence()} for each in self.matched],
            "gains": [{**plain_fields(each), "shown": each.shown} for each in self.gains],
            "pareto_front": [result.name for result in self.front()],
            "pareto_set": pareto_json(self.front()),
        }
        clean: dict[str, Any] = json_able({**head, **figures, "verdict": verdict, **extra, "trials": trials})
        return clean

    def front(self) -> list[GeometryResult]:
        """The geometries that no other one equals or beats on both accuracy and device hours, cheapest first."""
        return pareto_front(self.verdict.ranking)

    def front_lines(self) -> list[str]:
        """The same in words, where the sweep searched for it."""
        return pareto_lines(self.front(), self.metric) if self.is_trade_off else []

    def peaked(self) -> list[TrialSummary]:
        """Finished trials whose curve was highest before its end, those that fell furthest first."""
        found = [trial for trial in self.trials if trial.comparable and trial.probed.fall > 0]
        return sorted(found, key=lambda trial: -trial.probed.fall)

    def peak_lines(self) -> list[str]:
        """That in words, with what the figures are worth; empty where no curve peaked before its end."""
        found, finished = self.peaked(), [trial for trial in self.trials if trial.comparable]
        if not found:
            return []
        of = "The curve" if len(finished) == 1 else f"{len(found)} of {len(finished)} curves"
        first = found[0]
        return [
            f"{of} peaked before the end. {'It' if len(finished) == 1 else 'The one that fell furthest'} "
            f"({first.title}, seed {first.seed}) {first.probed.peak_text()}.",
            "A picked figure is the highest of several and reads high; the verdict compares values at the end. "
            "`export` takes a trial's best checkpoint unless told otherwise.",
        ]

    def axes(self) -> list[str]:
        """The dotted keys that the sweep varied."""
        return list(dict.fromkeys(key for trial in self.trials for key in trial.point))

    def cost_line(self) -> str:
        """What the whole sweep cost."""
        cost = cost_text(self.held if self.held.counted else self.hours)
        if self.energy_kwh is not None:
            cost += f", {self.energy_kwh:.4g} kWh"
        trials = counted(len(self.trials), "trial")
        return f"Whole sweep: {cost}, {self.seconds / 60:.1f} minutes, {trials}, {self.state}."

    def rows(self) -> list[list[str]]:
        """The table: a header and one row a trial, best first, then those that did not finish."""
        labels = list(dict.fromkeys(label for trial in self.trials for label in trial.accuracies))
        gpus = self.hours.has_gpus
        published = ["published"] if self.has_published else []
        head = ["#", self.terms.one, "seed", "state", "images", self.metric, *published, "gain", *labels]
        places = self._places()
        rows = [[*head, "GPU hours" if gpus else "core hours"]]
        for trial in self._in_order():
            accuracies = [trial.accuracies.get(label, math.nan) for label in labels]
            hours = trial.share.gpu if gpus else trial.share.cpu_core
            state = trial.state if trial.state != "stopped" else "stopped early"
            cells = [places.get(trial.trial_id, ""), trial.title, str(trial.seed), state]
            cells += [f"{trial.images:,}", _figure(trial.value)]
            cells += [_figure(trial.published)] if published else []
            cells += [_figure(trial.value - trial.untrained_value, sign=True), *map(_figure, accuracies)]
            rows.append([*cells, f"{hours:.3f}"])
        return rows

    @property
    def has_published(self) -> bool:
        """Whether any point carries a published value to stand beside the measured one."""
        return any(math.isfinite(trial.published) for trial in self.trials)

    def row_trial_ids(self) -> list[str]:
        """The trial of each row below the header."""
        return [trial.trial_id for trial in self._in_order()]

    def _places(self) -> dict[str, str]:
        """Rank by trial, with `=` where it is tied with the best."""
        return {
            trial_id: f"{result.rank}{'=' if result.tied else ''}"
            for result in self.verdict.ranking
            for trial_id in result.trial_ids
        }

    def _in_order(self) -> list[TrialSummary]:
        ranks = {trial_id: result.rank for result in self.verdict.ranking for trial_id in result.trial_ids}
        return sorted(self.trials, key=lambda trial: (ranks.get(trial.trial_id, math.inf), -trial.images))


_TRIAL_KEYS = (
    "trial_id",
    "name",
    "point",
    "seed",
    "state",
    "reason",
    "value",
    "images",
    "accuracies",
    "untrained",
    "pixels",
    "label",
    "published",
)


def summarize(config: RunConfig, record: SweepRecord) -> Summary:
    """The summary of a sweep as its journal tells it."""
    trials = tuple(trial_summaries(config, record))
    ended_ms = record.ended_ms or max(
        (stamp for trial in record.trials.values() for stamp in trial.timestamps_ms.values()),
        default=record.started_ms,
    )
    verdict, geometries = judge(trials, config.sweep.metric), group_geometries(trials)
    is_methods = terms_of([key for each in trials for key in each.point]) == METHODS
    findings = None
    is_population = config.sweep.pbt is not None  # whose figures are not those of points of the space
    if verdict.noise is not None and not is_methods and not is_population:
        findings = explore(config, geometries, verdict.noise)  # methods are no axis
    return Summary(
        sweep_id=record.sweep_id,
        state=record.state,
        metric=config.sweep.metric,
        trials=trials,
        verdict=verdict,
        hours=record.hours,
        seconds=max(0, ended_ms - record.started_ms - record.idle_ms) / 1000,
        energy_kwh=ledger_of(record, config.budget).total_energy_kwh,
        held=record.held,
        findings=findings,
        matched=() if is_population else tuple(compare(geometries, config.sweep.metric, against_best=True)),
        gains=tuple(method_gains(geometries)) if is_methods else (),
        published_source=config.sweep.published_source or "",
        is_trade_off=config.sweep.trade_off is not None,
        population=tuple(population_lines(config, record, trials)),
        driven_axes=driven_keys(config.sweep),
    )


def _surface_json(findings: Findings) -> dict[str, Any]:
    """What was read off the surface, and every geometry's realised figures."""
    return {
        "axes": [axis.name for axis in findings.choice.axes],
        "notes": list(findings.choice.notes),
        "noise_sd_points": findings.surface.noise_sd,
        "highest": {
            "figures": dict(findings.best_figures),
            "mean": findings.best_mean,
            "low_90": findings.best_interval.low,
            "high_90": findings.best_interval.high,
        },
        "importance": [plain_fields(axis) for axis in findings.importance],
        "next": [plain_fields(suggestion) for suggestion in findings.suggestions],
        "realised": {name: dict(figures) for name, figures in findings.figures.items()},
    }


def _markdown_table(rows: Sequence[Sequence[str]]) -> list[str]:
    def line(cells: Sequence[str]) -> str:
        return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"

    return [line(rows[0]), line(["---"] * len(rows[0])), *(line(row) for row in rows[1:])]


def _figure(value: float, *, sign: bool = False) -> str:
    return "-" if not math.isfinite(value) else f"{value:+.1f}" if sign else f"{value:.1f}"
