"""What a sweep would do, without doing it: `--dry-run` and `orchestrator plan`.

Looks at the data source and samples masks; trains nothing, packs nothing, writes nothing.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from orchestrator.config import default_config, first_seeds, flatten, most_seeds
from orchestrator.config.models import RunConfig, TrainConfig
from orchestrator.config.space import space_text
from orchestrator.data import Survey, survey_source
from orchestrator.protocol.events import WarmStarted
from orchestrator.sweep.core import bracket_of, generation_ends, promotes, rungs_images
from orchestrator.sweep.foresight.defaults import default_notes
from orchestrator.sweep.foresight.geometries import GeometryAudit, SweepAudit, audit_sweep
from orchestrator.sweep.foresight.model_costs import checkpoint_bytes
from orchestrator.sweep.foresight.target_lag import TeacherLag, teacher_lag
from orchestrator.sweep.run import label_notes
from orchestrator.sweep.search import read_warm_start
from orchestrator.sweep.space import (
    SweepPlan,
    TrialPlan,
    even_points,
    listed_point,
    make_trial,
    plan_sweep,
    point_name,
)
from orchestrator.text import align, counted, with_prefix
from orchestrator.train.loop import plan_run

if TYPE_CHECKING:
    from orchestrator.sweep.foresight.quote import Quote

_MAX_NOTES = 10
_MAX_LISTED = 8
_QUOTED_POINTS = 4
"""Points by which a search that proposes its own is quoted."""


@dataclass(frozen=True, kw_only=True)
class CostEstimate:
    """Floating-point operations of training, counted from the tokens that the masks come to.

    `flops` is the sum over every trial to its end, `seeds: auto` taken at its most; `least_flops` what the sweep comes
    to at best, when each rung lets through just its share and no further seed is asked for (the same as `flops` where
    nothing is halved and the seeds are given). Probes, loading and start-up are not in it.
    """

    flops: float
    least_flops: float
    flops_of_trial: Mapping[str, float]
    ends: tuple[str, str] = ("halved as planned", "nothing stopped")
    """What the least and the most stand for."""

    def text(self) -> str:
        """In one line."""
        span = with_prefix(self.flops, "FLOP")
        if self.least_flops < self.flops:
            least, most = self.ends
            span = f"{with_prefix(self.least_flops, 'FLOP')} ({least}) to {span} ({most})"
        return f"{span} of training; probes, loading and start-up come on top"

    def to_json(self) -> dict[str, object]:
        """As a JSON-able dictionary."""
        return {
            "flops": self.flops,
            "least_flops": self.least_flops,
            "flops_of_trial": dict(self.flops_of_trial),
        }


@dataclass(frozen=True, kw_only=True)
class CheckpointEstimate:
    """Sizes in bytes: of the largest trial's checkpoint, and of all that the sweep keeps at once, the best included."""

    one_bytes: int
    all_bytes: int
    num_kept: int

    def text(self) -> str:
        """In one line."""
        one, every = with_prefix(self.one_bytes, "B"), with_prefix(self.all_bytes, "B")
        return f"{one} each, {self.num_kept} kept a trial beside its best weights, {every} in all"


@dataclass(frozen=True, kw_only=True)
class PlanDescription:
    """A sweep's plan in words and in JSON."""

    config: RunConfig
    plan: SweepPlan
    audit: SweepAudit
    data: Survey
    cost: CostEstimate
    checkpoints: CheckpointEstimate
    teacher: TeacherLag | None = None
    quote: Quote | None = None
    warm: WarmStarted | None = None

    @property
    def notes(self) -> tuple[str, ...]:
        """What was merged or capped, and what the audit warns of."""
        return (
            *label_notes(self.config, self.data),
            *_missing_parts(self.config, self.data),
            *(() if self.warm is None else self.warm.notes),
            *self.plan.notes,
            *default_notes(self.config, self.data),
            *([self.teacher.warning()] if self.teacher is not None and self.teacher.is_large else []),
            *self.audit.notes,
            *self.audit.warnings,
        )

    def to_json(self) -> dict[str, object]:
        """As a JSON-able dictionary."""
        return {
            "name": self.config.name,
            "config": flatten(self.config),
            "search": self.config.sweep.search,
            "space": space_text(self.config.sweep),
            "num_trials": num_trials(self.config, self.plan),
            "most_trials": most_trials(self.config, self.plan),
            "trials": [
                {"trial_id": trial.trial_id, "point": trial.point.to_json(), "seed": trial.seed}
                for trial in self.plan.trials
            ],
            "images_a_trial": self._images(),
            "rungs_images": list(rungs_images(self.config.sweep.asha, self.config.train.images)),
            "generation_ends_images": list(generation_ends(self.config.sweep.pbt, self.config.train.images)),
            "data": self.data.to_json(),
            "audit": self.audit.to_json(),
            "cost": self.cost.to_json(),
            "quote": None if self.quote is None else self.quote.to_json(),
            "checkpoints": {"one_bytes": self.checkpoints.one_bytes, "all_bytes": self.checkpoints.all_bytes},
            "teacher_lag": None if self.teacher is None else self.teacher.to_json(),
            "notes": list(self.notes),
        }

    def text(self) -> str:
        """As lines for a person."""
        sweep, train = self.config.sweep, self.config.train
        lines = [
            f"{self.config.name}: {_counted(self.config, self.plan)} {_searched(self.config)}",
            f"data         {self.data.text()}",
            *(f"             {line}" for line in self.data.lines()[1:]),
            f"each trial   {counted(self._images(), 'image')} in batches of {train.batch_size}, {_workers(train)}",
            f"ranked by    {sweep.metric}; {_compared(self.config)}",
            f"cost         {self.cost.text()}",
            *([] if self.quote is None else [f"quote        {self.quote.text()}"]),
            *self._budget(),
            f"checkpoints  {self.checkpoints.text()}, at {self.config.storage.uri}",
            *([] if self.teacher is None else [f"momentum     {self.teacher.text()}"]),
            "",
            align(self._rows()),
            *self._remarks(),
        ]
        return "\n".join(lines)

    def _budget(self) -> list[str]:
        """The cap, and what the quote says of it; nothing where none is set."""
        budget = self.config.budget
        caps = {"GPU": budget.gpu_hours, "CPU core": budget.cpu_core_hours}
        told = [f"{cap:g} {device} hours" for device, cap in caps.items() if cap is not None]
        if not told:
            return []
        said = "" if self.quote is None else f"; {self.quote.against(caps[self.quote.device])}"
        return [f"budget       at most {' or, without a GPU, '.join(told)}{said}"]

    def _rows(self) -> list[list[str]]:
        """The trials with what their masks come to; samples of the space where a search proposes its own points."""
        head = ["trial", "geometry", "seed"]
        published = [listed_point(self.config, trial.point) for trial in self.plan.trials]
        figures = ["context", "of grid", "target", "all targets"]
        if not self.plan.trials:
            rows = [
                ["sample", each.name, "-", *_figures(each), f"{each.flops.total / 1e9:.3g}"]
                for each in self.audit.geometries
            ]
            return [[*head, *figures, "GFLOP/image"], *rows]
        rows = []
        for trial in self.plan.trials:
            geometry = self.audit.of_trial(trial.trial_id)
            cells = [trial.trial_id, point_name(self.config, trial.point), str(trial.seed)]
            flops = self.audit.flops_per_image.get(trial.trial_id, math.nan)
            cells += _figures(geometry) if geometry else ["-"] * len(figures)
            rows.append([*cells, f"{flops / 1e9:.3g}" if math.isfinite(flops) else "-"])
            if self.quote is not None:
                rows[-1].append(f"{self.quote.hours_of_trial[trial.trial_id]:.3g}")
        figures.append("GFLOP/image")
        if self.quote is not None:
            figures.append(f"{self.quote.device} hours")
        if any(point is not None and point.published is not None for point in published):
            figures.append("published")
            for row, point in zip(rows, published, strict=True):
                row.append("-" if point is None or point.published is None else f"{point.published:.1f}")
        return [[*head, *figures], *rows]

    def _remarks(self) -> list[str]:
        changed = differences(self.config)
        settings = [f"  {key}: {json.dumps(value, default=str)}" for key, value in changed.items()]
        notes = [f"note: {note}" for note in self.notes[:_MAX_NOTES]]
        more = len(self.notes) - len(notes)
        notes += (
            [f"and {more} more notes: `orchestrator masks audit FILE` writes all of them on a page"]
            if more > 0
            else []
        )
        title = "settings that differ from the defaults (`orchestrator config show FILE` prints all):"
        return [*([""] if notes else []), *notes, "", title, *(settings or ["  none"])]

    def _images(self) -> int:
        plan = plan_run(self.config)
        return plan.images_at(plan.total_steps)


def describe_plan(
    config: RunConfig, say: Callable[[str], None] | None = None, *, earlier: Sequence[RunConfig] = ()
) -> PlanDescription:
    """Plan a sweep and stop there.

    With `say`, which is told what happens meanwhile, short runs on this machine give a quote; that packs the data.
    `earlier` are the configurations so far of a sweep that goes on.

    Raises:
        ConfigError: The sweep that `sweep.warm_start` names is not there.
        DataError, StorageError: The data source is missing, cannot be read or cannot be reached.
    """
    plan = plan_sweep(config, earlier)
    audit = audit_sweep(config, plan)
    cost = estimate_cost(config, plan, audit)
    return PlanDescription(
        config=config,
        plan=plan,
        audit=audit,
        data=survey_source(config),
        cost=cost,
        checkpoints=estimate_checkpoints(config, plan),
        teacher=lag_of_sweep(config, plan),
        quote=None if say is None else quote_cost(config, plan, cost, say),
        warm=read_warm_start(config),
    )


def quote_cost(config: RunConfig, plan: SweepPlan, cost: CostEstimate, say: Callable[[str], None]) -> Quote:
    """Device hours of the sweep, from short runs of its own trials, or points of its space where none is known."""
    from orchestrator.sweep.foresight.quote import calibrate  # the training loop takes seconds to import

    trials, flops = plan.trials, cost.flops_of_trial
    if not trials:
        sample = _sampled_plan(config)
        trials, flops = (
            sample.trials,
            estimate_cost(config, sample, audit_sweep(config, sample)).flops_of_trial,
        )
    return calibrate(
        config,
        trials,
        flops,
        num_trials=most_trials(config, plan),
        least_share=cost.least_flops / cost.flops,
        least_words=cost.ends[0],
        say=say,
    )


def _sampled_plan(config: RunConfig) -> SweepPlan:
    """Trials at a few points that lie evenly in the space of a search that proposes its own."""
    trials: dict[str, TrialPlan] = {}
    for number, point in enumerate(even_points(config, _QUOTED_POINTS)):
        trial = make_trial(config, point, first_seeds(config.sweep)[0], number)
        if trial.is_valid():  # else it is none of the sweep's
            trials.setdefault(trial.trial_id, trial)
    return SweepPlan(trials=tuple(trials.values()))


def lag_of_sweep(config: RunConfig, plan: SweepPlan) -> TeacherLag | None:
    """How far the target encoder lags behind in the sweep's trials; of sampled points where a search proposes them."""
    trials = plan.trials or _sampled_plan(config).trials
    return teacher_lag([trial.config for trial in trials] or [config])


def num_trials(config: RunConfig, plan: SweepPlan) -> int:
    """Trials of the sweep, those among them that its search has yet to propose; the least under `seeds: auto`."""
    return len(plan.trials) or (config.sweep.num_trials or 1) * len(first_seeds(config.sweep))


def most_trials(config: RunConfig, plan: SweepPlan) -> int:
    """The most trials that the sweep may come to: under `seeds: auto` every geometry may contend to the last seed."""
    return num_trials(config, plan) // len(first_seeds(config.sweep)) * len(most_seeds(config.sweep))


def estimate_cost(config: RunConfig, plan: SweepPlan, audit: SweepAudit) -> CostEstimate:
    """What the sweep's training comes to, from each geometry's realised tokens."""
    mean_flops, of_trial = audit.mean_flops_per_image, {}
    for trial in plan.trials:
        run = plan_run(trial.config)
        per_image = audit.flops_per_image.get(trial.trial_id, mean_flops)
        of_trial[trial.trial_id] = per_image * run.images_at(run.total_steps)
    run = plan_run(config)
    total = sum(of_trial.values())
    if not plan.trials:
        total = mean_flops * run.images_at(run.total_steps) * num_trials(config, plan)
    share = _halved_share(config, plan)
    least, most = [], []
    if share < 1:
        least, most = ["halved as planned"], ["nothing stopped"]
    if config.sweep.seeds == "auto":
        least, most = [*least, "one seed each"], [*most, f"{config.sweep.max_seeds} seeds each"]
    return CostEstimate(
        flops=total * most_trials(config, plan) / num_trials(config, plan),
        least_flops=total * share,
        flops_of_trial=of_trial,
        ends=(", ".join(least), ", ".join(most)),
    )


def _counted(config: RunConfig, plan: SweepPlan) -> str:
    """How many trials, in words."""
    least, most = num_trials(config, plan), most_trials(config, plan)
    return counted(least, "trial") if least == most else f"{least} to {most} trials (sweep.seeds: auto)"


def _halved_share(config: RunConfig, plan: SweepPlan) -> float:
    """The share of all images that is trained on when every rung lets through just its share of trials."""
    asha, total, count = config.sweep.asha, config.train.images, num_trials(config, plan)
    if asha is None:
        return 1.0
    images = 0.0
    for bracket in range(asha.brackets):
        in_bracket, seen = len(range(bracket, count, asha.brackets)), 0  # trials are dealt in turn
        # Where trials wait, geometries are ranked: all seeds of one go on, and one goes on at least.
        points = {trial.point for trial in plan.trials if bracket_of(asha, trial.index) == bracket}
        left = len(points) if promotes(config.sweep) else in_bracket
        seeds = in_bracket / max(1, left)
        for rung in (*rungs_images(asha, total, bracket=bracket), total):
            images += seeds * left * (rung - seen)
            seen, share = rung, left / asha.reduction_factor
            left = max(1, math.floor(share)) if promotes(config.sweep) else math.ceil(share)
    return images / (count * total)


def estimate_checkpoints(config: RunConfig, plan: SweepPlan) -> CheckpointEstimate:
    """The size of checkpoints, counted from the tensors that one holds."""
    models = {}
    sizes = []
    for each in [trial.config for trial in plan.trials] or [config]:
        model = (each.encoder, each.predictor, each.objective)
        if model not in models:
            models[model] = checkpoint_bytes(each)
        sizes.append(models[model])
    kept, most = config.train.keep_checkpoints, most_trials(config, plan)
    kept += config.sweep.pbt is not None  # the one that others may take over
    held = sum(each.whole * kept + each.weights for each in sizes)
    repeats = most / (num_trials(config, plan) if plan.trials else 1)
    return CheckpointEstimate(
        one_bytes=max(each.whole for each in sizes), all_bytes=round(held * repeats), num_kept=kept
    )


def differences(config: RunConfig) -> dict[str, object]:
    """The settings that are not the defaults, by dotted key."""
    defaults = flatten(default_config())
    return {
        key: value
        for key, value in flatten(config).items()
        if key != "sweep.points" and (key not in defaults or defaults[key] != value)
    }


def _missing_parts(config: RunConfig, data: Survey) -> list[str]:
    """Parts that the configuration names and the data lacks, as far as it is known which there are."""
    there = ", ".join(data.num_samples)
    return [
        f"there is no {part} part: data.{part}_split is {split!r} and the data has {there}; {remedy}"
        for part, split, remedy in (
            ("train", config.data.train_split, "nothing can be trained"),
            ("test", config.data.test_split, "nothing can be probed and no geometry ranked"),
        )
        if data.num_samples and not data.num_samples.get(split)
    ]


def _workers(train: TrainConfig) -> str:
    """What a trial holds, in words: `1 worker with 1 CPU, GPUs as there are`."""
    gpus = "GPUs as there are" if train.gpus_per_worker == "auto" else counted(train.gpus_per_worker, "GPU")
    workers, cpus = ("" if count == 1 else "s" for count in (train.num_workers, train.cpus_per_worker))
    fewest = "" if train.min_workers is None else f"{train.min_workers} to "
    return f"{fewest}{train.num_workers} worker{workers} with {train.cpus_per_worker:g} CPU{cpus} and {gpus}"


def _searched(config: RunConfig) -> str:
    sweep = config.sweep
    if sweep.points:
        return f"at {len(sweep.points)} listed points"
    return f"by {sweep.search} search over {space_text(sweep)}" if sweep.space else "of one configuration"


def _compared(config: RunConfig) -> str:
    """What happens to trials on their way, in words."""
    sweep, images = config.sweep, config.train.images
    rungs, ends = rungs_images(sweep.asha, images), generation_ends(sweep.pbt, images)
    if sweep.pbt is not None and ends:
        share = f"the lowest {100 * sweep.pbt.replaced_fraction:g} % go on from the highest"
        return f"a population, in which {share} at {_listed(ends)} images"
    if sweep.asha is None or not rungs:
        return "no trial is stopped early"
    brackets, share = sweep.asha.brackets, f"1 in {sweep.asha.reduction_factor}"
    dealt = f"; in {brackets} brackets, each later one without another of the first" if brackets > 1 else ""
    compared = "of all geometries" if promotes(sweep) else "of the trials that came before"
    return f"the best {share} {compared} go on at {_listed(rungs)} images{dealt}"


def _listed(images: Sequence[int]) -> str:
    """Points in training: all of a few, else the first and the last."""
    shown = [f"{each:,}" for each in images]
    return ", ".join(shown if len(shown) <= _MAX_LISTED else [*shown[:2], "...", shown[-1]])


def _figures(geometry: GeometryAudit) -> list[str]:
    audit = geometry.audit
    return [
        f"{audit.context_patches.mean:.1f}",
        f"{audit.context_fraction.mean:.3f}",
        f"{audit.target_fraction.mean:.3f}",
        f"{audit.target_union_fraction.mean:.3f}",
    ]
