"""The training loop: shards, masks, step, probes, checkpoints and reports of one run on one rank.

Knows nothing of Ray: `train/ray/slot` gives it a rank and a reporter, and so can a test in one process. A run is a
function of its configuration: data order, crops, masks and weights come from the run seed and the step, so a run that
goes on from a checkpoint ends with the same weights, bit for bit on a CPU, as one that was never stopped.
`train.num_workers` lays a batch out in equal shares, each with masks of its own; fewer workers do several shares each,
one after another, so that their number changes the weights by the order of summation alone.
"""

from __future__ import annotations

import hashlib
import json
import logging
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from jepa_core.masks import PatchGrid, mask_metrics
from jepa_core.objectives import Sampler
from jepa_core.parallel import wrap
from jepa_core.sharding import has_shards
from jepa_core.step import Precision, TrainState, prepare_images, train_step
from orchestrator.config.models import RunConfig
from orchestrator.data import Batch, BatchStream, ShardSet, check_borne, count_samples, keep_trial_ledger
from orchestrator.data.read import ORDER_VERSION
from orchestrator.errors import CheckpointError
from orchestrator.protocol.jobs import Inheritance, TrialJob
from orchestrator.protocol.metrics import (
    BAD_PROBE_SAMPLES,
    BAD_SAMPLES,
    CHECKPOINT_S,
    IMAGES_PER_S,
    MISSING,
    PROBE,
    PROBE_S,
    UNTRAINED,
    WAIT_FRACTION,
)
from orchestrator.protocol.reports import Decision, Row, TrialReport
from orchestrator.storage import open_store
from orchestrator.train.distributed import Rank
from orchestrator.train.evaluate import (
    Baselines,
    DataCache,
    Evaluation,
    Evaluations,
    Evaluator,
    LateResult,
    ProbeData,
    Snapshot,
    Weights,
    evaluate,
    measure_health,
    measure_signs,
    weights_of,
)
from orchestrator.train.initial import load_initial, new_state
from orchestrator.train.loop.best import BestKeeper
from orchestrator.train.loop.checkpoint import Checkpoint, checkpoint_name, save_checkpoint
from orchestrator.train.loop.costs import StepCosts
from orchestrator.train.loop.energy import EnergyMeter, energy_meter, summed_j
from orchestrator.train.loop.lineage import find_checkpoint, load_inherited
from orchestrator.train.loop.plan import RunPlan, Stop, plan_run
from orchestrator.train.loop.preemption import PreemptionNotice
from orchestrator.train.loop.weight_change import WeightChange
from orchestrator.train.reporting import Reporter
from orchestrator.train.stores import checkpoint_store, trial_store

_log = logging.getLogger(__name__)


@dataclass
class Meter:
    """Sums of a run's metrics since the last report: on the device for the step's, in seconds for the clock's."""

    rank: Rank
    costs: StepCosts | None = None
    names: tuple[str, ...] = ()
    total_N: Tensor | None = None
    num_steps: int = 0
    started_s: float = field(default_factory=time.monotonic)
    wait_s: float = 0.0

    def add(self, metrics: Mapping[str, Tensor]) -> None:
        """Add one step's device scalars, without waiting for the device."""
        self.names = tuple(sorted(metrics))
        values_N = torch.stack([metrics[name].detach().float() for name in self.names])
        self.total_N = values_N if self.total_N is None else self.total_N + values_N
        self.num_steps += 1

    def drain(self, *, batch_size: int) -> dict[str, float]:
        """Mean metrics over ranks and steps, rates, and start anew. Every rank must call it."""
        out: dict[str, float] = {}
        if self.total_N is not None:
            means = self.rank.mean(self.total_N / self.num_steps).tolist()
            out.update(zip(self.names, means, strict=True))
            elapsed_s = max(1e-9, time.monotonic() - self.started_s)
            out[IMAGES_PER_S] = self.num_steps * batch_size / elapsed_s
            out[WAIT_FRACTION] = min(1.0, self.wait_s / elapsed_s)
            if self.costs is not None:
                rate = out[IMAGES_PER_S]
                out |= self.costs.take(out, num_steps=self.num_steps, images_per_s=rate)
        elif self.costs is not None:
            self.costs.discard()
        self.names, self.total_N, self.num_steps = (), None, 0
        self.started_s, self.wait_s = time.monotonic(), 0.0
        return out


class Run:
    """One run on one rank: state, data and doors, built once; `train` carries it to its end or to a stop."""

    def __init__(
        self,
        job: TrialJob[RunConfig],
        reporter: Reporter,
        rank: Rank,
        cache: DataCache | None = None,
        notice: PreemptionNotice | None = None,
        energy: EnergyMeter | None = None,
        evaluator: Evaluator | None = None,
    ) -> None:
        """`evaluator` is rank 0's, where evaluations run asynchronously."""
        self.notice, self.evaluator = notice, evaluator
        self.evaluations: Evaluations | None = None
        self.baselines: Baselines | None = None
        self._opening: Row | None = None  # the first row, while its baselines are in the making elsewhere
        self.energy = energy if energy is not None else energy_meter(job.config, rank.device)
        cache = cache if cache is not None else DataCache()
        self.job, self.config, self.rank, self.reporter = job, job.config, rank, reporter
        self.plan: RunPlan = plan_run(self.config, job.rungs_images)
        self.store = checkpoint_store(job)
        self.best = BestKeeper(self.store, self.config, self.plan.total_steps)
        self.shards: ShardSet = cache.shards(job.shards_uri, self.config)
        self.probes: ProbeData | None = cache.probes(self.config, self.shards)
        self.state: TrainState = new_state(self.config, self.plan.total_steps, rank)
        grid = self.state.objective.context_encoder.grid
        self.grid = PatchGrid(grid.rows, grid.columns)
        self.sampler: Sampler = self.state.objective.build_sampler(self.config.masks)
        self.num_shares = (
            1 if self.state.objective.needs_whole_batch else rank.shares_of(self.config.train.num_workers)
        )
        self.costs = StepCosts(self.state, self.config, rank)
        self.meter = Meter(rank, self.costs)
        self.weight_change = WeightChange(self.state.objective.target_encoder)

    def train(self) -> None:
        """Go on from the newest checkpoint, or begin, until the end or until told to stop."""
        if self.evaluator is not None and self.probes is not None:
            self.evaluations = Evaluations(self.evaluator, max_failures=self.config.probe.max_failures)
        try:
            self._train()
        finally:
            if self.evaluations is not None:
                self.evaluations.close()

    def _train(self) -> None:
        if self.rank.index == 0:
            self.store.clean(recursive=True)  # what a killed attempt was writing
            self.best.find()
            if self.probes is not None and self.probes.bad_samples:
                keep_trial_ledger(trial_store(self.job), self.probes.bad_samples)
        checkpoint, inherits = find_checkpoint(self.store, self.rank), self.job.inherits
        if inherits is not None and (checkpoint is None or checkpoint.step <= inherits.step):
            is_over = self._inherit(inherits)
        else:
            is_over = self._begin() if checkpoint is None else self._resume(checkpoint)
        if is_over:
            return
        stops = self.plan.stops_after(self.state.step)
        model = self._model()
        with BatchStream(
            self.shards,
            data=self.config.data,
            image_size_px=self.config.encoder.image_size_px,
            batch_size=self.config.train.batch_size,
            rank=self.rank.index,
            world_size=self.rank.world_size,
            seed=self.config.train.seed,
            start_step=self.state.step,
            total_steps=self.plan.total_steps,
        ) as stream:
            self.meter.drain(batch_size=1)
            self.weight_change.take()
            for batch in stream:
                self._step(batch, model)
                if not self._open_late(wait=False):
                    return
                stop = stops.get(self.state.step)
                if self.notice is not None and self.notice.take() and not (stop and stop.checkpoint):
                    self._save_between_stops()
                if stop is None:
                    continue
                self.meter.wait_s = stream.take_wait_s()
                if self._at_stop(stop, bad_samples=self._count_bad_samples(stream)).action != "continue":
                    return

    def _model(self) -> torch.nn.Module:
        return self.state.objective if self.rank.world_size == 1 else wrap(self.state.objective)

    def _step(self, batch: Batch, model: torch.nn.Module) -> None:
        device = self.rank.device
        images = prepare_images(batch.images_uint8_BCHW, self.config.data.mean, self.config.data.std, device)
        masks = [
            self.sampler.sample(
                sample_ids_B, epochs_B, seed=self.config.train.seed, step=self.state.step, device=device
            )
            for sample_ids_B, epochs_B in zip(
                batch.sample_ids_B.tensor_split(self.num_shares),
                batch.epochs_B.tensor_split(self.num_shares),
                strict=True,
            )
        ]
        metrics = train_step(self.state, images, masks, model=model, timer=self.costs.timer)
        self.meter.add({**metrics, **_means([mask_metrics(share, self.grid) for share in masks])})

    def _begin(self) -> bool:
        """Measure the baselines and the state before training; returns whether the run is to stop at once.

        Where another trial is measuring a baseline, a run of one process trains meanwhile and reports it later.
        """
        metrics: dict[str, float] = {}
        is_complete = True
        if self.probes is not None:
            metrics |= measure_health(self.state, self.probes, config=self.config, rank=self.rank)
            self.baselines = self._baselines_of(self.probes)
            is_complete = self.baselines.find(wait=self.rank.world_size > 1)
        if self.config.train.init_from is not None:
            load_initial(self.state, self.config.train.init_from, self.config.storage)
            if self.probes is not None:
                found = evaluate(self.state, self.probes, config=self.config, rank=self.rank)
                metrics |= found.metrics
        metrics |= self._bad_probe_samples() | summed_j(self.rank.gather(self.energy.take_j()))
        self._opening = Row(images=0, timestamp_ms=_now_ms(), metrics=metrics)
        return is_complete and self._open().action != "continue"

    def _baselines_of(self, probes: ProbeData) -> Baselines:
        def untrained() -> TrainState:
            return (
                self.state
                if self.state.step == 0
                else new_state(self.config, self.plan.total_steps, self.rank)
            )

        return Baselines(
            untrained=untrained,
            shards=self.shards,
            probes=probes,
            config=self.config,
            rank=self.rank,
            store=open_store(f"{self.job.run_uri}/baselines", self.config.storage),
        )

    def _open(self) -> Decision:
        """Report the first row with its baselines, which are all there by now."""
        assert self._opening is not None
        row, self._opening = self._opening, None
        figures = {} if self.baselines is None else self.baselines.figures
        metrics = figures | {
            PROBE + key.removeprefix(UNTRAINED): value
            for key, value in figures.items()
            if key.startswith(UNTRAINED)
        }
        row = replace(row, metrics=metrics | dict(row.metrics))
        return self._deliver(TrialReport(trial_id=self.job.trial_id, images=0, rows=(row,)))

    def _open_late(self, *, wait: bool) -> bool:
        """Report the first row once its baselines are there; returns whether training goes on."""
        if self._opening is None or self.baselines is None:
            return True
        if not (self.baselines.find(wait=True) if wait else self.baselines.look()):
            return True
        if self._open().action == "continue":
            return True
        images = self.plan.images_at(self.state.step)
        self._finish(TrialReport(trial_id=self.job.trial_id, images=images, rows=()), is_saved=False)
        return False

    def _resume(self, found: Checkpoint) -> bool:
        """Load a checkpoint and repeat its report; returns whether nothing is left to do.

        The report of a checkpoint may have been lost with its process, so it is kept inside the checkpoint and sent
        again: rows are idempotent and a rung that was decided before is answered as before.
        """
        self._check_same_run(found, self.config)
        # A trial that was extended goes on at its place in the longer run's schedules.
        meta = {**found.meta["state"], "total_steps": self.plan.total_steps}
        self.state.load_state_dict({"tensors": found.tensors, "meta": meta})
        _log.info("%s goes on from %s", self.job.trial_id, found.name)
        report = TrialReport.from_json(found.meta["report"])
        report = replace(report, final=report.final and self.state.step >= self.plan.total_steps)
        report = self._with_late_rows(report, found.meta.get("evaluating", []))
        report = replace(report, best=self.best.held)
        return self._deliver(report).action != "continue" or report.final

    def _inherit(self, inherits: Inheritance[RunConfig]) -> bool:
        """Take over another trial's weights; its reports are its own, so there is none to repeat."""
        found = load_inherited(inherits, self.job.run_uri, self.rank)
        self._check_same_run(found, inherits.config)
        self.state.load_state_dict({"tensors": found.tensors, "meta": found.meta["state"]})
        if self.rank.index == 0:
            self.best.forget(up_to_step=inherits.step)
        _log.info("%s goes on from %s of %s", self.job.trial_id, found.name, inherits.trial_id)
        return False

    def _check_same_run(self, found: Checkpoint, config: RunConfig) -> None:
        """A checkpoint is of a run of this configuration and these data, computed in the same precision."""
        where, before = f"{self.store.uri}/{found.name}", found.meta.get("precision", self.rank.precision)
        if before != self.rank.precision:
            raise CheckpointError(
                f"{where}: the checkpoint was computed in {before} and this device would go on in "
                f"{self.rank.precision} (train.precision: {self.config.train.precision}); go on with it on a device "
                "of the kind that it was begun on"
            )
        lengths = (config.train.images, *self.job.shorter_images)
        known = {
            run_fingerprint(config, self.shards.digest, before, train_images=images) for images in lengths
        }
        if found.meta["fingerprint"] not in known:
            raise CheckpointError(
                f"{where}: the checkpoint was written under another configuration or other data than this run's; "
                "use a new sweep id, or move the checkpoint away"
            )

    def _count_bad_samples(self, stream: BatchStream) -> int:
        """Samples that no rank could use; more than a run bears stop it on every rank."""
        entries = {entry for found in self.rank.gather(stream.bad_samples) for entry in found}
        count = count_samples(entries)
        if entries:
            if self.rank.index == 0:
                keep_trial_ledger(trial_store(self.job), entries)
            check_borne(count, stream.max_bad_samples, max(entries, key=lambda entry: entry.offset))
        return count

    def _bad_probe_samples(self) -> dict[str, float]:
        """How many samples the probes had to leave out; every rank reads the same ones."""
        return (
            {} if self.probes is None else {BAD_PROBE_SAMPLES: float(count_samples(self.probes.bad_samples))}
        )

    def _at_stop(self, stop: Stop, *, bad_samples: int) -> Decision:
        metrics = self.meter.drain(batch_size=self.config.train.batch_size)
        metrics[BAD_SAMPLES] = float(bad_samples)
        metrics |= self._bad_probe_samples()
        metrics |= self.weight_change.take()
        if not self._open_late(wait=True):
            return Decision(action="stop")
        started_s = time.monotonic()
        late = self._late_results(wait=stop.checkpoint)
        waited_s = time.monotonic() - started_s
        evaluation = self._measure(stop)
        metrics |= summed_j(self.rank.gather(self.energy.take_j()))
        metrics |= evaluation.metrics
        if self.evaluations is not None:
            metrics[PROBE_S] = metrics.get(PROBE_S, 0.0) + waited_s
        images = self.plan.images_at(stop.step)
        row = Row(images=images, timestamp_ms=_now_ms(), metrics=metrics)
        report = TrialReport(
            trial_id=self.job.trial_id,
            images=images,
            rows=(*(result.row for result in late), row),
            rung=stop.rung,
            final=stop.final,
            checkpoint=checkpoint_name(stop.step) if stop.checkpoint else None,
            correct=evaluation.correct or _newest_correct(late),
            best=self.best.held,
        )
        if stop.checkpoint:
            self._save(report)
        decision = self._deliver(report)
        if decision.action != "continue":
            self._finish(report, is_saved=stop.checkpoint)
        self.meter.drain(batch_size=1)
        return decision

    def _finish(self, report: TrialReport, *, is_saved: bool) -> None:
        """Leave a checkpoint and the results of what is being evaluated to whoever goes on with a stopped run."""
        late = self._late_results(wait=True)
        report = replace(report, best=self.best.held)
        rest = replace(report, rows=tuple(result.row for result in late), checkpoint=None, rung=None)
        if not is_saved:
            self._save(replace(report, rows=(*report.rows, *rest.rows)))
        if self.rank.broadcast(bool(late)):
            self._deliver(replace(rest, correct=_newest_correct(late)))

    def _late_results(self, *, wait: bool) -> list[LateResult]:
        """Results from beside since the last report; a checkpoint waits for all, as their weights are not in it."""
        late = [] if self.evaluations is None else self.evaluations.take(wait=wait)
        self._keep_best_of(late)
        return late

    def _keep_best_of(self, late: Sequence[LateResult]) -> None:
        """Keep the weights of a late result that is the highest so far; on rank 0, which alone has any."""
        for result in late:
            step = result.row.images // self.plan.batch_size
            if self.best.is_better(step, result.row.metrics):
                self._keep_best(step, result.row.metrics, result.weights)

    def _keep_best(self, step: int, metrics: Mapping[str, float], weights: Weights) -> None:
        started_s = time.monotonic()
        self.best.keep(step, metrics, weights)
        self.costs.keep_for_next(CHECKPOINT_S, time.monotonic() - started_s)

    def _evaluate(self, probes: ProbeData) -> Evaluation:
        """Probe the present weights, and keep them where no probe was higher. Every rank must call it."""
        found = evaluate(self.state, probes, config=self.config, rank=self.rank)
        if self.rank.broadcast(self.best.is_better(self.state.step, found.metrics)):
            weights = weights_of(self.state, self.rank)
            if self.rank.index == 0:
                self._keep_best(self.state.step, found.metrics, weights)
        return found

    def _measure(self, stop: Stop) -> Evaluation:
        """The probe where one is due, here or begun beside; signs of collapse at every other stop."""
        if self.probes is None:
            return Evaluation()
        if stop.probe and not self._starts_async(stop):
            return self._evaluate(self.probes)
        return Evaluation(metrics=measure_signs(self.state, self.probes, config=self.config, rank=self.rank))

    def _starts_async(self, stop: Stop) -> bool:
        """Begin an asynchronous evaluation where nothing waits for it; returns whether it was begun."""
        has_room = self.evaluations is not None and self.evaluations.has_room
        if stop.rung is not None or stop.final or not self.rank.broadcast(has_room):
            return False
        self._evaluate_async(self.plan.images_at(stop.step))
        return True

    def _evaluate_async(self, images: int) -> None:
        weights = weights_of(self.state, self.rank)
        if self.evaluations is not None:
            self.evaluations.start(
                Snapshot(
                    config=self.config,
                    shards_uri=self.job.shards_uri,
                    images=images,
                    timestamp_ms=_now_ms(),
                    weights=weights,
                )
            )

    def _with_late_rows(self, report: TrialReport, evaluating: list[int]) -> TrialReport:
        """A checkpoint's report, given the images of evaluations that were not in when it was written.

        The one of the checkpoint's own weights is made again; the weights of the others are gone.
        """
        images = self.plan.images_at(self.state.step)
        if images in evaluating:
            beside = self.rank.broadcast(self.evaluations is not None)
            if beside:
                self._evaluate_async(images)
            elif self.probes is not None:
                found = self._evaluate(self.probes)
                row = Row(images=images, timestamp_ms=_now_ms(), metrics=found.metrics)
                report = replace(report, rows=(*report.rows, row), correct=found.correct)
        lost = [
            Row(images=other, timestamp_ms=_now_ms(), metrics={MISSING: 1.0})
            for other in evaluating
            if other != images
        ]
        return replace(report, rows=(*lost, *report.rows))

    def _save(self, report: TrialReport) -> None:
        started_s = time.monotonic()
        if self.rank.index != 0 and not has_shards(self.state.objective):
            return
        saved = self.state.state_dict()
        if self.rank.index != 0:
            return
        evaluating = [] if self.evaluations is None else self.evaluations.standing()[1]
        save_checkpoint(
            self.store,
            step=self.state.step,
            tensors=saved["tensors"],
            meta={
                "state": saved["meta"],
                "report": report.to_json(),
                "fingerprint": run_fingerprint(self.config, self.shards.digest, self.rank.precision),
                "evaluating": evaluating,
                "precision": self.rank.precision,
            },
            keep=self.config.train.keep_checkpoints,
            pinned_step=self.job.pinned_step,
        )
        self.costs.keep_for_next(CHECKPOINT_S, time.monotonic() - started_s)

    def _save_between_stops(self) -> None:
        """A checkpoint without metrics, since the node will be taken away; the rank that heard it is alone with it.

        Sharded weights are gathered by all ranks together, so that such a run keeps to its stops. So does one whose
        first row has not been reported: whoever went on from the checkpoint would never report it.
        """
        if self._opening is None and not has_shards(self.state.objective):
            images = self.plan.images_at(self.state.step)
            late = [] if self.evaluations is None else self.evaluations.standing()[0]
            self._keep_best_of(late)
            rows = tuple(result.row for result in late)
            self._save(TrialReport(trial_id=self.job.trial_id, images=images, rows=rows))

    def _deliver(self, report: TrialReport) -> Decision:
        """Rank 0 reports; every rank hears the decision."""
        decision = self.reporter.report(report) if self.rank.index == 0 else Decision()
        return self.rank.broadcast(decision)


def _means(found: Sequence[Mapping[str, Tensor]]) -> dict[str, Tensor]:
    """The mean of each metric over shares of one size."""
    return {name: torch.stack([each[name] for each in found]).mean(0) for name in found[0]}


def run_fingerprint(
    config: RunConfig, data_digest: str, precision: Precision, *, train_images: int | None = None
) -> str:
    """A hash of everything that decides a run's weights; equal for runs that may continue each other.

    `train_images` stands for the configuration's own; `precision` is what `train.precision` came to on the device.
    Workers, cadences, places and resources are left out: a run may be resumed with others.
    """
    basis: dict[str, Any] = {
        "data": data_digest,
        "crop": [config.data.crop_scale, config.data.crop_aspect_ratio, config.data.mean, config.data.std],
        "order": [ORDER_VERSION, config.data.shuffle_shards],
        "train": [train_images or config.train.images, config.train.batch_size, config.train.seed, precision],
        **{
            name: asdict(getattr(config, name))
            for name in ("encoder", "predictor", "masks", "objective", "optimizer", "ema")
        },
    }
    if config.train.init_from is not None:
        basis["init_from"] = config.train.init_from
    return hashlib.sha256(json.dumps(basis, sort_keys=True, default=str).encode()).hexdigest()


def _newest_correct(results: list[LateResult]) -> Mapping[str, str]:
    return next((result.correct for result in reversed(results) if result.correct), {})


def _now_ms() -> int:
    return time.time_ns() // 1_000_000
