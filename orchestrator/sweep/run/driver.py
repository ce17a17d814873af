"""Running a sweep: data, Ray, the coordinator, Tune, and the follower, from a configuration to a finished record."""

from __future__ import annotations

import logging
import os
import platform
import secrets
import shutil
import signal
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from functools import partial
from importlib.metadata import PackageNotFoundError, version

import ray

from orchestrator.cluster import Cluster, plan_room, ray_cluster, trial_resources
from orchestrator.config import dump, flatten
from orchestrator.config.models import RunConfig
from orchestrator.config.space import space_text
from orchestrator.data import ShardSet, prepare_data, survey_source
from orchestrator.errors import ClusterError, StorageError, TrainingError
from orchestrator.protocol.events import AttemptStarted, SweepEnd, SweepEnded, SweepStarted, WarmStarted
from orchestrator.storage import Store, open_store
from orchestrator.sweep.client import CoordinatorCalls, client_of
from orchestrator.sweep.core import SweepRecord, uncapped
from orchestrator.sweep.journal import (
    Runs,
    check_same_sweep,
    check_something_left,
    driver_lease,
    earlier_configs,
    read_sweep,
    stopped_trial_id_of,
    take_request,
)
from orchestrator.sweep.run.aside import Aside
from orchestrator.sweep.run.checks import check_start
from orchestrator.sweep.run.coordinator import Coordinator
from orchestrator.sweep.run.labels import check_shards, check_survey
from orchestrator.sweep.run.slots import Slots
from orchestrator.sweep.search import Search, read_warm_start
from orchestrator.sweep.space import SweepPlan, plan_sweep
from orchestrator.sweep.watch import Follower, Observer
from orchestrator.tracking import (
    Delivery,
    RunStatus,
    SpooledTracker,
    Tracker,
    check_location,
    find_location,
    open_tracker,
    read_delivery,
    spool_folder,
)

_log = logging.getLogger(__name__)
_POLL_S = 0.5
_REQUEST_POLL_S = 2.0
_DELIVERY_S, _HOPELESS_S = 60.0, 5.0
"""How long an ending sweep waits for MLflow: while it takes calls, and when the last one failed."""


@dataclass(frozen=True, kw_only=True)
class SweepRequest:
    """What to run and where.

    `sweep_id` None makes an id up; `resume` says that a sweep of this id exists and is gone on with.
    """

    config: RunConfig
    observer: Observer
    sweep_id: str | None = None
    resume: bool = False
    revive: tuple[str, ...] = ()
    """Trials, by id or number, whose stop is undone; needs `resume`."""
    origin: str = ""
    """What a new sweep is begun for, where that is no search: `reproduction of SWEEP/TRIAL`, `best of SWEEP`."""
    address: str | None = None
    num_cpus: int | None = None
    on_started: Callable[[SweepStart], None] | None = None
    """Called once the data is there and the tracker open, before the first trial."""
    on_training: Callable[[SweepStart], None] | None = None
    """Called in a thread of its own once a trial has its workers, and waited for before `on_ended`."""
    on_ended: Callable[[SweepRecord, Tracker, str], None] | None = None
    """Called with the record, the open tracker and the run's URI after the last trial."""
    on_cluster_loss: Callable[[ClusterError], None] | None = None
    """Called from another thread when the cluster dies under the sweep; must end the process."""


@dataclass(frozen=True, kw_only=True)
class SweepStart:
    """What is known when a sweep starts."""

    config: RunConfig
    plan: SweepPlan
    shards: ShardSet
    tracker: Tracker
    run_uri: str


def check_tracking(config: RunConfig) -> str:
    """Why the tracking store does not answer now; empty when all is well. Calls wait for a store that may come back.

    Raises:
        TrackingError: Waiting will not help: what is wrong and the remedy.
    """
    return check_location(find_location(config.tracking, tracking_root(config)))


def tracking_root(config: RunConfig) -> str:
    """The folder whose MLflow store is the default: that of local runs, or `runs` for those in a bucket."""
    return str(Runs.of(config.storage).local_folder)


def delivery_of(config: RunConfig, sweep_id: str) -> Delivery:
    """What became of the calls of a sweep that has ended."""
    return read_delivery(spool_folder(tracking_root(config), sweep_id))


def run_sweep(request: SweepRequest) -> SweepRecord:
    """Run a sweep, or go on with one, to its end or to an interruption.

    Raises:
        ConfigError, DataError, StorageError, TrackingError, ClusterError: Before any trial starts.
        TrainingError: Every trial failed.
        KeyboardInterrupt: Interrupted, by Ctrl-C or SIGTERM, before the search began; nothing is left running.
    """
    with _sigterm_as_interrupt():
        return _run_unleased(request)


def _run_unleased(request: SweepRequest) -> SweepRecord:
    config, observer = request.config, request.observer
    sweep_id = request.sweep_id or new_sweep_id(config.name)
    runs = Runs.of(config.storage)
    uri = runs.sweep_uri(sweep_id)
    store = open_store(uri, config.storage)
    plan = plan_sweep(config)
    if request.resume:
        going_on = check_resume(config, sweep_id, request.revive)
        request, plan = replace(request, revive=going_on.revive), plan_sweep(config, going_on.earlier)
    warm = _warm_start(config, store, is_new=not request.resume)
    for note in check_start(config, address=request.address, num_cpus=request.num_cpus):
        observer.on_message(f"note: {note}")
    check_tracking(config)  # a store that may come back is told of by the spool
    with driver_lease(store), _saying_how_to_go_on(observer, store, runs.command("resume", sweep_id)):
        take_request(store)  # one that an earlier driver did not hear any more; later ones are for this one
        shards = _labelled_shards(config, observer)
        store.write("config.yaml", dump(config).encode())
        return _run_leased(request, sweep_id, uri, plan, shards, warm)


def _labelled_shards(config: RunConfig, observer: Observer) -> ShardSet:
    """The sweep's shards; refused, before they are packed where that can be known, when nothing could be ranked.

    Raises:
        DataError: There is no label to rank several points by, or no image to train or to test on.
    """
    survey = survey_source(config)
    for line in survey.lines():
        observer.on_message(line)
    check_survey(config, survey)
    shards = prepare_data(config, progress=observer.on_message)
    for note in shards.manifest.notes:
        if note not in survey.notes:
            observer.on_message(f"note: {note.text()}")
    check_shards(config, shards)
    return shards


def _warm_start(config: RunConfig, store: Store, *, is_new: bool) -> WarmStarted | None:
    """What an earlier sweep tells this one; None where none is named, or the journal holds it already."""
    if not is_new:
        record = read_sweep(store)
        if record.trials or record.warm_start:
            return None
    return read_warm_start(config)


@dataclass(frozen=True, kw_only=True)
class GoingOn:
    """What is known of a sweep that goes on: the ids of the trials to revive, and its configurations so far."""

    revive: tuple[str, ...]
    earlier: tuple[RunConfig, ...]


def check_resume(config: RunConfig, sweep_id: str, revive: tuple[str, ...] = ()) -> GoingOn:
    """Whether a sweep can go on under a configuration.

    Raises:
        NotFoundError: There is no such sweep.
        ConfigError: The configuration would not mean the same trials, a trial to revive is not there or was not
            stopped, or the sweep was cancelled.
    """
    record = read_sweep(open_store(Runs.of(config.storage).sweep_uri(sweep_id), config.storage))
    check_same_sweep(config, record)
    if not revive:
        check_something_left(config, record)
    return GoingOn(
        revive=tuple(stopped_trial_id_of(record, name) for name in revive), earlier=earlier_configs(record)
    )


def _run_leased(
    request: SweepRequest,
    sweep_id: str,
    uri: str,
    plan: SweepPlan,
    shards: ShardSet,
    warm: WarmStarted | None,
) -> SweepRecord:
    config, observer = request.config, request.observer
    where = f"joining Ray at {request.address}" if request.address else "starting Ray (10 to 30 s)"
    observer.on_message(where)
    with (
        _tracker(config, sweep_id, observer) as tracker,
        _scratch() as scratch,
        ray_cluster(
            request.address, num_cpus=request.num_cpus, on_cluster_loss=request.on_cluster_loss
        ) as cluster,
        _sigterm_as_interrupt(),  # Ray has put a handler of its own in its place
    ):
        observer.on_message(f"Ray is up: {cluster.text()}; starting the first worker (10 to 30 s)")
        room = plan_room(config, cluster)
        if config.probe.beside is not None and not room.evaluates_async:
            observer.on_message("no room for probe.beside next to a trial: training stops for its probes")
        resources = trial_resources(config, cluster)
        if (warning := uncapped(config.budget, has_gpus=resources.num_gpus > 0)) is not None:
            observer.on_message(warning)
        coordinator = _start_coordinator(
            config,
            uri,
            sweep_id,
            plan,
            shards,
            cluster,
            evaluates_async=room.evaluates_async,
            origin=request.origin,
        )
        if warm is not None:
            coordinator.append(warm)
        for trial_id in request.revive:
            coordinator.revive(trial_id)
        start = SweepStart(config=config, plan=plan, shards=shards, tracker=tracker, run_uri=uri)
        if request.on_started is not None:
            request.on_started(start)
        aside = Aside("what is done beside training", partial(request.on_training or _nothing, start))
        follower = Follower(config, tracker, observer)
        concurrency = room.num_slots
        slots = Slots(
            coordinator=coordinator,
            resources=resources,
            num_slots=concurrency,
            scratch_dir=scratch,
            max_failures=config.train.max_failures,
        )
        search = Search(
            config=config,
            plan=plan,
            coordinator=coordinator,
            concurrency=concurrency,
            driver_share=cluster.driver_share(),
            scratch_dir=scratch,
        )
        store = open_store(uri, config.storage)
        state = _Driver(search, slots, coordinator, follower, store, aside).run()
        coordinator.append(SweepEnded(state=state))
        follower.follow(coordinator.events(follower.num_seen))
        record = follower.record
        aside.wait()
        _deliver(tracker, observer)
        if request.on_ended is not None:
            request.on_ended(record, tracker, uri)
        tracker.finish_sweep(RunStatus.FINISHED if state == "finished" else RunStatus.KILLED)
    failures = [trial for trial in record.in_order() if trial.state == "failed"]
    if failures and len(failures) == len(record.trials):
        raise TrainingError(f"every trial failed; the first: {failures[0].reason}")
    return record


def _nothing(_: SweepStart) -> None:
    """What is done beside training where nothing is asked for."""


def new_sweep_id(name: str) -> str:
    """A fresh id: name, UTC time and four random hex digits."""
    return f"{name}-{time.strftime('%Y%m%d-%H%M%S', time.gmtime())}-{secrets.token_hex(2)}"


def environment(cluster: Cluster) -> dict[str, object]:
    """What a reader needs to judge and repeat the figures: versions, machine, resources."""
    packages = ("orchestrator", "torch", "timm", "ray", "mlflow", "webdataset", "numpy", "optuna")
    return {
        "python": platform.python_version(),
        "platform": platform.platform(),
        "packages": {name: _version(name) for name in packages},
        "resources": {key: value for key, value in cluster.resources.items() if key in ("CPU", "GPU")},
    }


class _Driver:
    """Runs the search while the main thread follows the coordinator and hears the keyboard."""

    def __init__(
        self,
        search: Search,
        slots: Slots,
        coordinator: CoordinatorCalls,
        follower: Follower,
        store: Store,
        aside: Aside,
    ) -> None:
        self.search, self.slots, self.coordinator, self.follower = search, slots, coordinator, follower
        self.store, self.aside = store, aside
        self.error: BaseException | None = None
        self.stopped: SweepEnd | None = None
        self._looked_s = 0.0
        # Not the thread's own end: before Python 3.13 one whose `join` a signal interrupts counts as ended, and is not.
        self._ended = threading.Event()

    def run(self) -> SweepEnd:
        """Carry the sweep to its end; returns `finished`, `interrupted`, `paused` or `cancelled`.

        Raises:
            TrainingError: No slot could be kept up.
        """
        threading.Thread(target=self._work, name="search", daemon=True).start()
        while not self._ended.is_set():
            try:
                self._ended.wait(_POLL_S)
                self._follow()
                self._hear_requests()
            except KeyboardInterrupt:
                if self.stopped == "interrupted":
                    raise
                self._stop("interrupted")
        if self.stopped == "cancelled":
            self.coordinator.cancel_rest()
        self._follow()
        if self.error is not None:
            raise self.error
        if self.slots.gave_up:
            reason = next(iter(self.slots.errors.values()))
            raise TrainingError(f"no worker group could be kept up; the last error: {reason}")
        return self.stopped or "finished"

    def _follow(self) -> None:
        entries = self.coordinator.events(self.follower.num_seen)
        self.follower.follow(entries)
        if any(isinstance(entry.event, AttemptStarted) for entry in entries):
            self.aside.begin()
        if self.slots.gave_up:
            self.coordinator.stop_all("no slot is left")

    def _hear_requests(self) -> None:
        if time.monotonic() - self._looked_s < _REQUEST_POLL_S or self.stopped:
            return
        self._looked_s = time.monotonic()
        request = take_request(self.store)
        if request is not None:
            self._stop("paused" if request == "pause" else "cancelled")

    def _stop(self, state: SweepEnd) -> None:
        self.stopped = state
        self.coordinator.stop_all(state)
        self.follower.observer.on_message(
            f"{state}: every running trial writes its checkpoint and returns; Ctrl-C again stops at once"
        )

    def _work(self) -> None:
        try:
            self.slots.start()
            self.search.run()
            self.slots.join()
        except BaseException as err:  # handed to the main thread, which raises it
            self.error = err
        finally:
            self._ended.set()


def _start_coordinator(
    config: RunConfig,
    uri: str,
    sweep_id: str,
    plan: SweepPlan,
    shards: ShardSet,
    cluster: Cluster,
    *,
    evaluates_async: bool,
    origin: str,
) -> CoordinatorCalls:
    """The coordinator's actor, on the driver's node, with the sweep and its known trials journaled."""
    node = ray.util.scheduling_strategies.NodeAffinitySchedulingStrategy(
        ray.get_runtime_context().get_node_id(), soft=False
    )
    actor = ray.remote(Coordinator).options(num_cpus=0, scheduling_strategy=node)
    coordinator = client_of(actor.remote(uri, config, shards.uri, evaluates_async=evaluates_async))
    if coordinator.record().sweep_id:
        coordinator.go_on(environment(cluster), os.getcwd())
    else:
        coordinator.append(
            SweepStarted(
                sweep_id=sweep_id,
                name=config.name,
                config=dump(config),
                folder=os.getcwd(),
                environment=environment(cluster),
                data={"uri": shards.uri, "digest": shards.digest},
                notes=plan.notes,
                origin=origin,
            )
        )
    for trial in plan.trials:
        coordinator.plan_trial(trial.trial_id, trial.index, trial.point, trial.seed, trial.name)
    return coordinator


def _deliver(tracker: Tracker, observer: Observer) -> None:
    """Have MLflow take what waits, so that the report can link to it; for a limited time, which is said."""
    links = tracker.links()
    if links.pending:
        limit_s = _HOPELESS_S if links.problem else _DELIVERY_S
        calls = "1 call" if links.pending == 1 else f"{links.pending} calls"
        observer.on_message(f"sending {calls} to MLflow, for at most {limit_s:g} s")
        tracker.flush(limit_s)


@contextmanager
def _tracker(config: RunConfig, sweep_id: str, observer: Observer) -> Iterator[Tracker]:
    """The sweep's tracker with its parent run open; closed, with what can be delivered in time, at the end."""
    root = tracking_root(config)
    tracker = open_tracker(
        config.tracking,
        root,
        config.tracking.experiment or config.name,
        spool_folder(root, sweep_id),
        headline=config.sweep.metric,
    )
    try:
        tracker.start_sweep(
            sweep_id,
            name=sweep_id,
            params={
                key: value
                for key, value in flatten(config).items()
                if not key.startswith(("sweep.space", "sweep.points"))
            },
            tags={"orchestrator.sweep": sweep_id, "orchestrator.axes": space_text(config.sweep)},
        )
        yield tracker
    except KeyboardInterrupt:
        tracker.finish_sweep(RunStatus.KILLED)
        raise
    finally:
        _close(tracker, observer)


def _close(tracker: SpooledTracker, observer: Observer) -> None:
    links = tracker.links()
    limit_s = _HOPELESS_S if links.problem else _DELIVERY_S
    if links.problem:
        observer.on_message(f"MLflow does not take the last calls; ending after {limit_s:g} s more")
    tracker.close(limit_s)


@contextmanager
def _scratch() -> Iterator[str]:
    """A folder for the state that Ray Train and Tune insist on writing; nothing reads it afterwards."""
    folder = tempfile.mkdtemp(prefix="orchestrator-ray-")
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def _saying_how_to_go_on(observer: Observer, store: Store, command: str) -> Iterator[None]:
    """Say of an interruption that is not the orderly stop's whether there is anything to go on with."""
    try:
        yield
    except KeyboardInterrupt:
        with suppress(StorageError):
            has_begun = len(store.list("journal/")) > 1  # the first event is the driver's own start
            go_on = f"`{command}` goes on" if has_begun else "no trial was planned yet"
            observer.on_message(f"interrupted; {go_on}")
        raise


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
