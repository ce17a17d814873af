"""Running a sweep: data, Ray, the board, Tune, and the follower, from a configuration to a finished record."""

from __future__ import annotations

import json
import logging
import platform
import secrets
import shutil
import signal
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import ray
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution
from ray import tune
from ray.tune.search.optuna import OptunaSearch

from orchestrator.config import dump, flatten
from orchestrator.config.models import Choice, RunConfig
from orchestrator.data import ShardSet, prepare_data
from orchestrator.errors import TrainingError
from orchestrator.storage import open_store
from orchestrator.sweep.board import Board
from orchestrator.sweep.cluster import Cluster, max_concurrent_trials, ray_cluster, trial_resources
from orchestrator.sweep.follower import Follower, Observer
from orchestrator.sweep.record import SweepRecord
from orchestrator.sweep.scheduler import rungs_images
from orchestrator.sweep.space import SweepPlan, TrialPlan, make_trial, plan_sweep
from orchestrator.sweep.trial import METRIC, SweepJob, run_trial
from orchestrator.tracking import RunStatus, Tracker, open_tracker

_log = logging.getLogger(__name__)
_POLL_S = 0.5
_TRIAL_RESTARTS = 3


@dataclass(frozen=True, kw_only=True)
class SweepRequest:
    """What to run and where; `sweep_id` names a sweep to go on with, None begins a new one."""

    config: RunConfig
    observer: Observer
    sweep_id: str | None = None
    address: str | None = None
    num_cpus: int | None = None
    on_started: Callable[[SweepStart], None] | None = None
    """Called once the data is there and the tracker open, before the first trial."""
    on_ended: Callable[[SweepRecord, Tracker, str], None] | None = None
    """Called with the record, the open tracker and the run's URI after the last trial."""


@dataclass(frozen=True, kw_only=True)
class SweepStart:
    """What is known when a sweep starts."""

    config: RunConfig
    plan: SweepPlan
    shards: ShardSet
    tracker: Tracker
    run_uri: str


def run_uri(config: RunConfig, sweep_id: str) -> str:
    """The sweep's folder: `<storage.uri>/<sweep_id>`, absolute."""
    root = config.storage.uri
    if "://" not in root:
        root = str(Path(root).expanduser().resolve())
    return f"{root.rstrip('/')}/{sweep_id}"


def run_sweep(request: SweepRequest) -> SweepRecord:
    """Run a sweep, or go on with one, to its end or to an interruption.

    Raises:
        ConfigError, DataError, StorageError, ClusterError: Before any trial starts.
        TrainingError: Every trial failed.
    """
    config, observer = request.config, request.observer
    plan = plan_sweep(config)
    sweep_id = request.sweep_id or new_sweep_id(config.name)
    uri = run_uri(config, sweep_id)
    shards = prepare_data(config, progress=observer.on_message)
    open_store(uri, config.storage).write("config.yaml", dump(config).encode())
    observer.on_message("starting Ray")
    with (
        _tracker(config, sweep_id) as tracker,
        _scratch() as scratch,
        ray_cluster(request.address, num_cpus=request.num_cpus) as cluster,
    ):
        sweep = SweepJob(
            config=config,
            shards_uri=shards.uri,
            run_uri=uri,
            rungs_images=rungs_images(config.sweep.asha, config.train.images),
            resources=trial_resources(config, cluster),
            scratch_dir=scratch,
        )
        concurrency = max_concurrent_trials(config, cluster)
        board = _start_board(sweep, sweep_id, plan, shards, cluster)
        if request.on_started is not None:
            request.on_started(
                SweepStart(config=config, plan=plan, shards=shards, tracker=tracker, run_uri=uri)
            )
        follower = Follower(config, tracker, observer)
        state = _Driver(sweep, plan, board, follower, concurrency, cluster).run()
        ray.get(board.append.remote("sweep_ended", state=state))
        follower.follow(ray.get(board.events.remote(follower.num_seen)))
        record = follower.record
        if request.on_ended is not None:
            request.on_ended(record, tracker, uri)
        tracker.finish_sweep(RunStatus.FINISHED if state == "finished" else RunStatus.KILLED)
    failures = [trial for trial in record.in_order() if trial.state == "failed"]
    if failures and len(failures) == len(record.trials):
        raise TrainingError(f"every trial failed; the first: {failures[0].reason}")
    return record


def new_sweep_id(name: str) -> str:
    """A fresh id: name, UTC time and four random hex digits."""
    return f"{name}-{time.strftime('%Y%m%d-%H%M%S', time.gmtime())}-{secrets.token_hex(2)}"


def environment(cluster: Cluster) -> dict[str, Any]:
    """What a reader needs to judge and repeat the figures: versions, machine, resources."""
    packages = ("orchestrator", "torch", "timm", "ray", "mlflow", "webdataset", "numpy", "optuna")
    return {
        "python": platform.python_version(),
        "platform": platform.platform(),
        "packages": {name: _version(name) for name in packages},
        "resources": {key: value for key, value in cluster.resources.items() if key in ("CPU", "GPU")},
    }


class _Driver:
    """Runs the phases of a sweep in Tune while the main thread follows the board and hears the keyboard."""

    def __init__(
        self,
        sweep: SweepJob,
        plan: SweepPlan,
        board: Any,
        follower: Follower,
        concurrency: int,
        cluster: Cluster,
    ) -> None:
        self.sweep, self.plan, self.board, self.follower = sweep, plan, board, follower
        self.concurrency, self.cluster = concurrency, cluster
        self.error: BaseException | None = None
        self.interrupted = False

    def run(self) -> str:
        """Carry the sweep to its end; returns `finished` or `interrupted`."""
        worker = threading.Thread(target=self._tune, name="tune", daemon=True)
        with _sigterm_as_interrupt():
            worker.start()
            while worker.is_alive():
                try:
                    worker.join(_POLL_S)
                    self.follower.follow(ray.get(self.board.events.remote(self.follower.num_seen)))
                except KeyboardInterrupt:
                    if self.interrupted:
                        raise
                    self._interrupt()
        self.follower.follow(ray.get(self.board.events.remote(self.follower.num_seen)))
        if self.error is not None:
            raise self.error
        return "interrupted" if self.interrupted else "finished"

    def _interrupt(self) -> None:
        self.interrupted = True
        ray.get(self.board.stop_all.remote("interrupted"))
        self.follower.observer.on_message(
            "stopping: every running trial writes its checkpoint and returns; Ctrl-C again stops at once"
        )

    def _tune(self) -> None:
        try:
            if self.plan.trials:
                self._grid(self.plan.trials)
            else:
                self._search()
        except BaseException as err:  # handed to the main thread, which raises it
            self.error = err

    def _grid(self, trials: tuple[TrialPlan, ...]) -> None:
        listed = [
            json.dumps({"point": trial.point, "seed": trial.seed, "index": trial.index}) for trial in trials
        ]
        self._fit({"trial": tune.grid_search(listed)}, num_samples=1, searcher=None)

    def _search(self) -> None:
        """Optuna proposes points under the first seed; the other seeds then repeat what it found."""
        config = self.sweep.config
        space: dict[str, BaseDistribution] = {
            key: CategoricalDistribution(list(range(len(axis.choices))))
            if isinstance(axis, Choice)
            else FloatDistribution(0.0, 1.0)
            for key, axis in config.sweep.space.items()
        }
        searcher = OptunaSearch(space=space, metric=METRIC, mode="max", seed=config.sweep.search_seed)
        self._fit({}, num_samples=config.sweep.num_trials or 1, searcher=searcher)
        record: SweepRecord = ray.get(self.board.record.remote())
        repeats = [
            make_trial(config, trial.point, seed, len(record.trials) + number)
            for number, (trial, seed) in enumerate(
                (trial, seed) for seed in config.sweep.seeds[1:] for trial in record.in_order()
            )
            if trial.state == "finished"
        ]
        if repeats and not self.interrupted:
            self._grid(tuple(repeats))

    def _fit(self, space: dict[str, Any], *, num_samples: int, searcher: OptunaSearch | None) -> None:
        trainable = tune.with_resources(
            tune.with_parameters(run_trial, sweep=self.sweep, board=self.board), self.cluster.driver_share()
        )
        tune.Tuner(
            trainable,
            param_space=space,
            tune_config=tune.TuneConfig(
                metric=METRIC,
                mode="max",
                num_samples=num_samples,
                search_alg=searcher,
                max_concurrent_trials=self.concurrency,
                trial_dirname_creator=lambda trial: trial.trial_id,
            ),
            run_config=tune.RunConfig(
                name="tune",
                storage_path=self.sweep.scratch_dir,
                verbose=0,
                failure_config=tune.FailureConfig(max_failures=_TRIAL_RESTARTS),
            ),
        ).fit()


def _start_board(sweep: SweepJob, sweep_id: str, plan: SweepPlan, shards: ShardSet, cluster: Cluster) -> Any:
    """The board's actor, on the driver's node, with the sweep and its known trials journaled."""
    node = ray.util.scheduling_strategies.NodeAffinitySchedulingStrategy(
        ray.get_runtime_context().get_node_id(), soft=False
    )
    board = (
        ray.remote(Board).options(num_cpus=0, scheduling_strategy=node).remote(sweep.run_uri, sweep.config)
    )
    if ray.get(board.events.remote()):
        ray.get(board.append.remote("sweep_resumed", environment=environment(cluster)))
    else:
        ray.get(
            board.append.remote(
                "sweep_started",
                sweep_id=sweep_id,
                name=sweep.config.name,
                config=dump(sweep.config),
                environment=environment(cluster),
                data={"uri": shards.uri, "digest": shards.digest},
                notes=list(plan.notes),
            )
        )
    for trial in plan.trials:
        ray.get(board.plan_trial.remote(trial.trial_id, trial.index, trial.point, trial.seed, trial.name))
    return board


@contextmanager
def _tracker(config: RunConfig, sweep_id: str) -> Iterator[Tracker]:
    """The sweep's tracker with its parent run open; closed, with everything delivered, at the end."""
    local = Path("runs") if "://" in config.storage.uri else Path(config.storage.uri)
    tracker = open_tracker(
        config.tracking,
        str(local.expanduser().resolve()),
        config.tracking.experiment or config.name,
        local.expanduser().resolve() / ".spool" / sweep_id,
    )
    try:
        tracker.start_sweep(
            sweep_id,
            name=sweep_id,
            params={
                key: value for key, value in flatten(config).items() if not key.startswith("sweep.space")
            },
            tags={"orchestrator.sweep": sweep_id},
        )
        yield tracker
    finally:
        tracker.close()


@contextmanager
def _scratch() -> Iterator[str]:
    """A folder for the state that Ray Train and Tune insist on writing; nothing reads it afterwards."""
    folder = tempfile.mkdtemp(prefix="orchestrator-ray-")
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def _sigterm_as_interrupt() -> Iterator[None]:
    """SIGTERM asks for the same orderly stop as the first Ctrl-C; only the main thread can hear it."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"
