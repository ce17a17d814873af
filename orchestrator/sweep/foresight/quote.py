"""A quote before a sweep: device hours of every trial and in total, from short runs of its own trials on this machine.

The cheapest and the dearest trial of each model run for a few reports through the loop that will train them: what an
image, a report, a probe, a checkpoint and a start take is measured, and put together for each trial by its plan. The
spread of the measurements becomes the quote's range. Called by `orchestrator plan --calibrate`.
"""

from __future__ import annotations

import shutil
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import torch

from orchestrator.config import apply_overrides, most_seeds
from orchestrator.config.models import RunConfig
from orchestrator.data import prepare_data
from orchestrator.protocol.jobs import TrialJob
from orchestrator.protocol.metrics import CHECKPOINT_S, IMAGES_PER_S, PROBE_S
from orchestrator.protocol.reports import Decision, TrialReport
from orchestrator.storage import open_store
from orchestrator.sweep.core import promotes, trial_rungs
from orchestrator.sweep.journal import Runs
from orchestrator.sweep.space import TrialPlan
from orchestrator.train.distributed import Rank
from orchestrator.train.evaluate import DataCache
from orchestrator.train.loop import Run, RunPlan, plan_run
from orchestrator.train.worker import resolve_precision, threads_per_worker

_MAX_CALIBRATIONS = 8
_STEPS_A_REPORT = 4
_REPORTS_A_PROBE = 8
_LEAST_REPORTS = _REPORTS_A_PROBE + 1
"""The report after a probe tells the seconds of its checkpoint."""
_MOST_REPORTS = 5 * _REPORTS_A_PROBE + 1
_LIMIT_S = 15.0
"""A calibration run that has its least reports ends after so long."""
_SAME_COST = 0.05
_NINE_IN_TEN = 1.645
_LEAST_UNCERTAINTY = 0.05
"""Relative; a machine that was quiet for some seconds may not stay so for hours."""


@dataclass(frozen=True, kw_only=True)
class Measured:
    """What one calibrated trial took, in seconds: an image, the rest of a report, a probe, a checkpoint, its start.

    `image_s` is one worker's. `spread` is the relative standard deviation of the seconds an image between reports.
    """

    image_s: float
    report_s: float
    probe_s: float
    checkpoint_s: float
    start_s: float
    spread: float

    def trial_s(self, plan: RunPlan, *, image_s: float, num_starts: int = 1) -> float:
        """Seconds of a whole trial with this plan, at so many seconds an image, started so many times."""
        num_probes = sum(stop.probe for stop in plan.stops)
        return (
            self.start_s * num_starts
            + image_s * plan.images_at(plan.total_steps)
            + self.report_s * (len(plan.stops) - num_probes)
            + self.probe_s * num_probes
            + self.checkpoint_s * sum(stop.checkpoint for stop in plan.stops)
        )


@dataclass(frozen=True, kw_only=True)
class Quote:
    """Device hours of trials and of all of them run to their end; `uncertainty` is relative, for nine cases in ten.

    `device` is "GPU" or "CPU core". `baselines_hours` is what the first trial of each seed measures for all;
    `least_share` what successive halving and `seeds: auto` leave of the training at best, `least_words` what that is.
    """

    device: str
    hours_of_trial: Mapping[str, float]
    num_trials: int
    baselines_hours: float
    uncertainty: float
    least_share: float = 1.0
    least_words: str = "halved as planned"
    price: float | None = None
    currency: str = ""
    calibrated_s: float = 0.0

    @property
    def hours(self) -> float:
        """Everything, with no trial stopped; trials that a search has yet to propose cost the mean."""
        known = list(self.hours_of_trial.values())
        return self.baselines_hours + self.num_trials * statistics.fmean(known)

    def text(self) -> str:
        """In one line."""
        low, high = self.hours * (1 - self.uncertainty), self.hours * (1 + self.uncertainty)
        money = "" if self.price is None else f", {self.hours * self.price:.2f} {self.currency}"
        text = f"{self.hours:.3g} {self.device} hours ({low:.3g} to {high:.3g}){money}"
        if self.least_share < 1:
            text += f"; {self.hours * self.least_share:.3g} when {self.least_words}"
        return f"{text}; starting worker groups comes on top"

    def against(self, cap: float | None) -> str:
        """What a cap on the hours of its device, None for none, means for the sweep."""
        if cap is None:
            return f"none on {self.device} hours, which are what is held here"
        if self.hours * (1 + self.uncertainty) <= cap:
            return "the quote keeps to it"
        if self.hours * self.least_share * (1 - self.uncertainty) > cap:
            return "less than the quote: the sweep will end before all its trials have"
        return "it may end the sweep before all its trials have ended"

    def to_json(self) -> dict[str, object]:
        """As a JSON-able dictionary."""
        return {
            "device": self.device,
            "hours": self.hours,
            "hours_halved_as_planned": self.hours * self.least_share,
            "uncertainty": self.uncertainty,
            "hours_of_trial": dict(self.hours_of_trial),
            "baselines_hours": self.baselines_hours,
            "money": None if self.price is None else self.hours * self.price,
            "currency": self.currency if self.price is not None else None,
            "calibrated_s": self.calibrated_s,
        }


@dataclass
class Stopwatch:
    """A reporter that keeps each report with the time it came at, and stops the run when it knows enough."""

    clock: Callable[[], float] = time.monotonic
    started_s: float = field(init=False)
    reports: list[tuple[float, TrialReport]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.started_s = self.clock()

    def report(self, report: TrialReport) -> Decision:
        """Keep the report."""
        now_s, num = self.clock(), len(self.reports)  # the first report comes before training
        self.reports.append((now_s, report))
        is_enough = num >= _MOST_REPORTS or (num >= _LEAST_REPORTS and now_s - self.started_s > _LIMIT_S)
        return Decision(action="stop", reason="calibrated") if is_enough else Decision()


def calibrate(
    config: RunConfig,
    trials: Sequence[TrialPlan],
    flops_of_trial: Mapping[str, float],
    *,
    num_trials: int,
    least_share: float = 1.0,
    least_words: str = "halved as planned",
    say: Callable[[str], None] = lambda text: None,
) -> Quote:
    """Measure and quote; `trials` are those of the plan, or a sample where a search proposes its own.

    `flops_of_trial` is what each one's training comes to, by trial id. Packs the data when it is not yet.

    Raises:
        DataError, StorageError: The data cannot be read, or the sweep's place not written.
    """
    begun_s = time.monotonic()
    shards = prepare_data(config, progress=say)
    bench = _Bench(config, shards.uri)
    chosen = choose_trials(trials, flops_of_trial)
    try:
        first = bench.measure(chosen[0], say=say)  # once more below: the later ones find what it has prepared
        known = [(trial, bench.measure(trial, say=say)) for trial in chosen]
    finally:
        bench.clean()
    baselines_s = max(0.0, first.start_s - known[0][1].start_s)
    devices = config.train.num_workers * bench.devices
    hours = {trial.trial_id: devices * trial_seconds(trial, known, flops_of_trial) / 3600 for trial in trials}
    return Quote(
        device=bench.device_name,
        hours_of_trial=hours,
        num_trials=num_trials,
        baselines_hours=devices * baselines_s * len(most_seeds(config.sweep)) / 3600,
        uncertainty=uncertainty([first.image_s, known[0][1].image_s], [each.spread for _, each in known]),
        least_share=least_share,
        least_words=least_words,
        price=config.budget.price_per_gpu_hour if bench.device_name == "GPU" else None,
        currency=config.budget.currency,
        calibrated_s=time.monotonic() - begun_s,
    )


def choose_trials(trials: Sequence[TrialPlan], flops_of_trial: Mapping[str, float]) -> list[TrialPlan]:
    """The cheapest and the dearest trial of each model, or one where all cost the same; at most eight."""
    models: dict[object, list[TrialPlan]] = {}
    for trial in trials:
        models.setdefault(_model(trial.config), []).append(trial)
    chosen: list[TrialPlan] = []
    for group in models.values():
        ranked = sorted(group, key=lambda trial: _flops_per_image(trial, flops_of_trial))
        low, high = (_flops_per_image(trial, flops_of_trial) for trial in (ranked[0], ranked[-1]))
        chosen += [ranked[0], ranked[-1]] if high > (1 + _SAME_COST) * low else [ranked[-1]]
    return chosen[:_MAX_CALIBRATIONS]


def trial_seconds(
    trial: TrialPlan, known: Sequence[tuple[TrialPlan, Measured]], flops_of_trial: Mapping[str, float]
) -> float:
    """Seconds of a trial, between those measured of its model by its operations an image."""
    same = [(other, each) for other, each in known if _model(other.config) == _model(trial.config)] or known
    flops = _flops_per_image(trial, flops_of_trial)
    places = sorted((_flops_per_image(other, flops_of_trial), each.image_s) for other, each in same)
    (low, low_s), (high, high_s) = places[0], places[-1]
    share = (flops - low) / (high - low) if high > low else 0.0
    image_s = low_s + min(1.0, max(0.0, share)) * (high_s - low_s)
    if not any(_model(other.config) == _model(trial.config) for other, _ in known):
        image_s *= flops / min(high, max(low, flops))  # a model that was not measured: by its operations
    nearest = min(same, key=lambda pair: abs(_flops_per_image(pair[0], flops_of_trial) - flops))[1]
    rungs = trial_rungs(trial.config, index=trial.index, seed=trial.seed)
    waits_at_rungs = trial.config.sweep.pbt is not None or promotes(trial.config.sweep)
    return nearest.trial_s(
        plan_run(trial.config, rungs),
        image_s=image_s / trial.config.train.num_workers,
        num_starts=1 + len(rungs) if waits_at_rungs else 1,
    )


def uncertainty(repeated_image_s: Sequence[float], spreads: Sequence[float]) -> float:
    """The relative half-width for nine cases in ten.

    From the spread between reports some seconds apart and between two runs of one trial. What disturbs a machine for
    seconds may as well last, so nothing is divided by the number of reports.
    """
    between = statistics.stdev(repeated_image_s) / statistics.fmean(repeated_image_s)
    return max(_LEAST_UNCERTAINTY, _NINE_IN_TEN * max(between, *spreads))


class _Bench:
    """Runs calibration runs one after the other in this process, in a folder of their own in the sweep's place."""

    def __init__(self, config: RunConfig, shards_uri: str) -> None:
        self.config, self.shards_uri, self.cache = config, shards_uri, DataCache()
        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        wants_gpu = config.train.gpus_per_worker != 0
        if not wants_gpu:
            self.device = torch.device("cpu")
        share = config.train.gpus_per_worker
        gpus = 1.0 if share == "auto" else share
        self.devices = gpus if self.device.type == "cuda" else config.train.cpus_per_worker
        self.device_name = "GPU" if self.device.type == "cuda" else "CPU core"
        self.uri = Runs.of(config.storage).sweep_uri(f".calibration-{time.time_ns():x}")
        self.num_runs = 0

    def measure(self, trial: TrialPlan, *, say: Callable[[str], None]) -> Measured:
        """Run the beginning of a trial."""
        say(f"calibrating with {trial.name}")
        batch = trial.config.train.batch_size // trial.config.train.num_workers
        every = _STEPS_A_REPORT * batch
        config = apply_overrides(
            trial.config,
            {
                "train.batch_size": batch,
                "train.num_workers": 1,
                "train.images": max(trial.config.train.images, 2 * _MOST_REPORTS * every),
                "train.report_every_images": every,
                "train.checkpoint_every_images": every * _REPORTS_A_PROBE,
                "probe.every_images": every * _REPORTS_A_PROBE,
            },
        )
        threads = torch.get_num_threads()
        torch.set_num_threads(threads_per_worker(config))
        watch = Stopwatch()
        self.num_runs += 1
        job = TrialJob(
            trial_id=f"{trial.trial_id}-{self.num_runs}",
            config=config,
            shards_uri=self.shards_uri,
            run_uri=self.uri,
        )
        try:
            rank = Rank(device=self.device, precision=resolve_precision(config, self.device))
            Run(job, watch, rank, self.cache).train()
        finally:
            torch.set_num_threads(threads)
        return read_watch(watch, every)

    def clean(self) -> None:
        """Remove what the calibration wrote."""
        store = open_store(self.uri, self.config.storage)
        for info in list(store.list()):
            store.delete(info.key)
        if "://" not in self.uri:
            shutil.rmtree(self.uri, ignore_errors=True)  # a disk keeps empty folders, a bucket has none


def read_watch(watch: Stopwatch, images_a_report: int) -> Measured:
    """The figures of a calibration run; its first report after the start is a warm-up and does not count."""
    rows = [report.rows[-1].metrics for _, report in watch.reports]
    gaps = [after[0] - before[0] for before, after in zip(watch.reports, watch.reports[1:], strict=False)]
    trained = list(zip(rows[1:], gaps, strict=True))[1:]
    rates = [images_a_report / metrics[IMAGES_PER_S] for metrics, _ in trained]
    probes = [metrics[PROBE_S] for metrics, _ in trained if PROBE_S in metrics]
    saves = [metrics[CHECKPOINT_S] for metrics, _ in trained if CHECKPOINT_S in metrics]
    rests = [
        gap - took
        for (metrics, gap), took in zip(trained, rates, strict=True)
        if PROBE_S not in metrics and CHECKPOINT_S not in metrics
    ]
    mean = statistics.fmean(rates)
    return Measured(
        image_s=mean / images_a_report,
        report_s=max(0.0, statistics.fmean(rests)) if rests else 0.0,
        probe_s=statistics.fmean(probes) if probes else 0.0,
        checkpoint_s=statistics.fmean(saves) if saves else 0.0,
        start_s=watch.reports[0][0] - watch.started_s,
        spread=statistics.stdev(rates) / mean,
    )


def _flops_per_image(trial: TrialPlan, flops_of_trial: Mapping[str, float]) -> float:
    plan = plan_run(trial.config)
    return flops_of_trial[trial.trial_id] / plan.images_at(plan.total_steps)


def _model(config: RunConfig) -> object:
    return config.encoder, config.predictor, config.objective, config.train.batch_size, config.execution
