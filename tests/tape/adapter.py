"""The only part of the tape that knows the code: drives a sweep of today by messages and reads what it leaves.

`Sweeps.handle` carries one message out; every decision that it comes to is in its answer or in the journal. `Watch`
reads a journal as its readers do: the record, `status`, `best`, the calls to the tracker. Nothing trains, no Ray runs.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from types import SimpleNamespace
from typing import Any
from unittest.mock import patch

from orchestrator.config import apply_overrides, default_config, dump, parse_config
from orchestrator.config import flatten as flat_config
from orchestrator.config.models import RunConfig
from orchestrator.errors import ConfigError, NotFoundError, StorageError
from orchestrator.protocol.events import KINDS, Entry, SweepStarted, parse
from orchestrator.protocol.jobs import Outcome, TrialJob
from orchestrator.protocol.point import Point
from orchestrator.protocol.reading import read
from orchestrator.protocol.reports import Row, TrialReport
from orchestrator.protocol.writing import plain_fields
from orchestrator.report import recommend, summarize
from orchestrator.report.words import summary as summary_module
from orchestrator.storage import MemoryStore, ObjectInfo
from orchestrator.sweep.core.fold import fold_events
from orchestrator.sweep.core.record import SweepRecord, TrialRecord
from orchestrator.sweep.core.seeds import next_seeds, unfinished_round
from orchestrator.sweep.journal import log as journal_module
from orchestrator.sweep.journal.log import read_events
from orchestrator.sweep.journal.resume import (
    check_same_sweep,
    check_something_left,
    earlier_configs,
    stopped_trial_id_of,
)
from orchestrator.sweep.run import coordinator as coordinator_module
from orchestrator.sweep.run.coordinator import Coordinator
from orchestrator.sweep.search.optuna import Proposals
from orchestrator.sweep.search.rounds import Search, known_trials
from orchestrator.sweep.search.tune_trial import HOURS, METRIC, _plan
from orchestrator.sweep.search.warm_start import take_over
from orchestrator.sweep.space.points import SweepPlan, TrialPlan, make_trial, plan_sweep
from orchestrator.sweep.watch import status as status_module
from orchestrator.sweep.watch.follower import Follower
from orchestrator.sweep.watch.status import SweepStatus
from orchestrator.tracking import Dataset, MemoryTracker, RunStatus
from orchestrator.train.loop.plan import plan_run

from .form import canonical

SECOND_READER_S = 7.0
"""How long after an event a reader of the status looks."""

Json = dict[str, Any]


class QuickStore(MemoryStore):
    """Lists its objects without a look into them."""

    def list(self, prefix: str = "") -> list[ObjectInfo]:
        keys = sorted(key for key in self.objects if key.startswith(prefix))
        return [ObjectInfo(key=key, size_bytes=len(self.objects[key]), etag="") for key in keys]


class FaultyStore(QuickStore):
    """Loses the answer of the next write of one kind of event, or refuses it."""

    def __init__(self) -> None:
        super().__init__()
        self.loses = self.refuses = ""

    def create(self, key: str, data: bytes) -> bool:
        kind = json.loads(data)["kind"] if key.startswith("journal/") else ""
        if kind and kind == self.refuses:
            self.refuses = ""
            raise StorageError(f"{key}: the disk is full")
        created = super().create(key, data)
        if kind and kind == self.loses:
            self.loses = ""
            raise StorageError(f"{key}: the answer was lost")
        return created


class Configs:
    """The configurations of a scenario by name, from what each sets, over the `text` of an old one if there is one."""

    def __init__(self, given: Mapping[str, Mapping[str, Any]]) -> None:
        self._by_name: dict[str, RunConfig] = {}
        self._texts: dict[str, str] = {}
        for name, settings in given.items():
            text = settings.get("text")
            base = default_config() if text is None else parse_config(text)
            config = apply_overrides(base, {key: value for key, value in settings.items() if key != "text"})
            self._by_name[name] = config
            for known in (dump(config), text):
                self._texts.setdefault(known or "", name)

    def __getitem__(self, name: str) -> RunConfig:
        return self._by_name[name]

    def named(self, event: Mapping[str, Any]) -> Json:
        """An event with the name of a configuration in place of its text, which every new setting would change."""
        text = event.get("config")
        return (
            dict(event) if text is None else {**event, "config": f"the configuration {self._texts[text]!r}"}
        )


class Sweeps:
    """The sweeps of a scenario, each in a store of its own; messages go to the one that was opened last."""

    def __init__(self, given: Mapping[str, Mapping[str, Any]]) -> None:
        self.configs = Configs(given)
        self.stores: dict[str, FaultyStore] = {}
        self.name = ""
        self._now_s = 0.0
        self._coordinators: dict[str, Coordinator] = {}
        """By the name of the driver's: an earlier driver may still be there."""
        self._coordinator: Coordinator
        self._config: RunConfig
        self._searcher: Proposals
        self._num_read: dict[str, int] = {}

    def handle(self, message: Mapping[str, Any]) -> Any:
        """Carry a message out at its time; the answer, or the error."""
        fields = {key: value for key, value in message.items() if key not in ("do", "at_s")}
        self._now_s = message["at_s"]
        try:
            return canonical(_MESSAGES[message["do"]](self, **fields))
        except (StorageError, ConfigError) as err:
            return {"error": str(err)}

    def take_events(self) -> list[tuple[str, Json]]:
        """What has been journalled since this was last asked, as (sweep, event)."""
        found = []
        for name, store in self.stores.items():
            keys = sorted(key for key in store.objects if key.startswith("journal/"))
            found += [(name, json.loads(store.objects[key])) for key in keys[self._num_read.get(name, 0) :]]
            self._num_read[name] = len(keys)
        return found

    # The driver's side

    def open(self, sweep: str, driver: str, config: str, *, evaluates_beside: bool = False) -> Json:
        self.name, self._config = sweep, self.configs[config]
        store = self.stores.setdefault(sweep, FaultyStore())
        with patch.object(journal_module.secrets, "token_hex", lambda size: driver):
            self._coordinator = Coordinator(
                "memory",
                self._config,
                "shards",
                evaluates_async=evaluates_beside,
                store=store,
                clock=lambda: self._now_s,
            )
        self._coordinators[driver] = self._coordinator
        return {"goes on": self._coordinator.record().sweep_id}

    def load(self, sweep: str, events: Sequence[Json]) -> None:
        """Put a journal there that was written before."""
        self.name = sweep
        store = self.stores.setdefault(sweep, FaultyStore())
        for number, event in enumerate(events):
            store.write(f"journal/{number:08d}.json", json.dumps(as_written(event)).encode())

    def switch(self, driver: str) -> None:
        """Speak to another driver that is still there."""
        self._coordinator = self._coordinators[driver]

    def plan(self, config: str, *, resumed: bool = False) -> Json:
        earlier = earlier_configs(self._journalled()) if resumed else ()
        plan = plan_sweep(self.configs[config], earlier)
        return {"trials": [_plan_json(trial) for trial in plan.trials], "notes": list(plan.notes)}

    def begin(self, notes: Sequence[str] = (), origin: str = "") -> None:
        self._coordinator.append(
            SweepStarted(
                sweep_id=self.name,
                name=self._config.name,
                config=dump(self._config),
                folder="/here",
                environment={"python": "3.11"},
                data={"uri": "shards", "digest": "d1"},
                notes=tuple(notes),
                origin=origin,
            )
        )

    def go_on(self) -> None:
        self._coordinator.go_on({"python": "3.12"}, "/there")

    def check_resume(self, config: str, revive: Sequence[str] = ()) -> Json:
        record = self._journalled()
        check_same_sweep(self.configs[config], record)
        if not revive:
            check_something_left(self.configs[config], record)
        return {"revive": [stopped_trial_id_of(record, name) for name in revive]}

    def warm_start(self, source: str) -> Json:
        found = take_over(self._config, fold_events(read_events(self.stores[source])))
        self._coordinator.append(found)
        return plain_fields(found)

    def journal(self, kind: str, **fields: Any) -> None:
        self._coordinator.append(read(KINDS[kind], fields))

    def plan_trial(self, point: Json, **trial: Any) -> None:
        self._coordinator.plan_trial(point=Point(point), **trial)

    def submit(self, point: Json, **trial: Any) -> None:
        self._coordinator.submit(point=Point(point), **trial)

    def next_seeds(self) -> Json:
        """What the driver does about seeds once every trial has ended; what it decides is journalled."""
        record = self._coordinator.record()
        asked = unfinished_round(record)
        reason = "unfinished"
        if not asked:
            decision = next_seeds(self._config, record)
            asked, reason = list(decision.trials), decision.reason
            if asked or reason not in record.notes:
                self._coordinator.append(decision.event())
        return {"trials": [{"point": point, "seed": seed} for point, seed in asked], "reason": reason}

    def make_trials(self, trials: Sequence[Json]) -> list[Json]:
        """The trials of points and seeds that were decided on."""
        first = len(self._coordinator.record().trials)
        return [
            _plan_json(make_trial(self._config, Point(each["point"]), each["seed"], first + place))
            for place, each in enumerate(trials)
        ]

    def repeats(self) -> list[Json]:
        """What further seeds repeat of the trials that a search proposed."""
        search = Search(
            config=self._config,
            plan=SweepPlan(trials=()),
            coordinator=None,
            concurrency=1,
            driver_share={},
            scratch_dir="",
        )
        return [_plan_json(trial) for trial in search._repeats(self._coordinator.record())]

    def start_search(self) -> Json:
        known = known_trials(self._config, self._coordinator.record())
        self._searcher = Proposals(self._config, known)
        return {
            "heard": [asdict(each) for each in known.heard],
            "pending": [asdict(each) for each in known.pending],
            "num_proposed": known.num_proposed,
        }

    def suggest(self, proposal: str) -> Json:
        """A trial that the search asks for, as Tune's actor would submit it."""
        arguments = self._searcher.suggest(proposal)
        plan = _plan(self._config, arguments)
        return {**_plan_json(plan), "index": plan.index if "trial" in arguments else None}

    def heard(self, proposal: str, value: float, hours: float) -> None:
        self._searcher.on_trial_complete(proposal, {METRIC: value, HOURS: hours})

    # The slots' side

    def next_trial(self, slot_id: str, attempt_id: str) -> Json:
        """What a slot does next, under this id if it is a trial."""
        uuid4 = lambda: SimpleNamespace(hex=attempt_id)  # noqa: E731
        with patch.object(coordinator_module.uuid, "uuid4", uuid4):
            assignment = self._coordinator.next_trial(slot_id)
        job = None if assignment.job is None else self._job_json(assignment.job)
        return {"kind": assignment.kind, **({"job": job} if job else {})}

    def attempt_ended(self, trial_id: str, attempt_id: str, **outcome: Any) -> None:
        self._coordinator.attempt_ended(trial_id, attempt_id, Outcome(**outcome))

    def report(self, attempt_id: str, **report: Any) -> Json:
        return asdict(self._coordinator.report(TrialReport.from_json(report), attempt_id))

    def store(self, **faults: str) -> None:
        """What the store does wrong at the next event of a kind: `loses` its answer, or `refuses` it."""
        for name, kind in faults.items():
            setattr(self.stores[self.name], name, kind)

    def _journalled(self) -> SweepRecord:
        return fold_events(read_events(self.stores[self.name]))

    def _job_json(self, job: TrialJob) -> Json:
        plan = plan_run(job.config, job.rungs_images)
        stops = [
            [plan.images_at(stop.step), stop.probe, stop.checkpoint, stop.rung, stop.final]
            for stop in plan.stops
        ]
        return {
            "trial_id": job.trial_id,
            "settings": _beside(job.config, self._config),
            "rungs_images": job.rungs_images,
            "shorter_images": job.shorter_images,
            "evaluates_beside": job.evaluates_async,
            "inherits": None
            if job.inherits is None
            else {
                "trial_id": job.inherits.trial_id,
                "step": job.inherits.step,
                "settings": _beside(job.inherits.config, self._config),
            },
            "pinned_step": job.pinned_step,
            "batch_size": plan.batch_size,
            "stops": stops,
        }


def _plain(method: str) -> Callable[..., Any]:
    """A message that is a call of the coordinator."""

    def call(sweeps: Sweeps, **fields: Any) -> Any:
        return getattr(sweeps._coordinator, method)(**fields)

    return call


_MESSAGES: dict[str, Callable[..., Any]] = {
    **{
        name: getattr(Sweeps, name)
        for name in (
            "open",
            "load",
            "switch",
            "plan",
            "begin",
            "go_on",
            "check_resume",
            "warm_start",
            "journal",
            "plan_trial",
            "submit",
            "next_seeds",
            "make_trials",
            "repeats",
            "start_search",
            "suggest",
            "heard",
            "next_trial",
            "attempt_ended",
            "report",
            "store",
        )
    },
    **{
        name: _plain(name)
        for name in (
            "expect",
            "stop_all",
            "is_stopping",
            "cancel_rest",
            "revive",
            "outcome",
            "hours",
            "slot_opened",
            "resize",
            "starts_again",
            "slot_started",
            "slot_closed",
            "slot_failed",
            "slot_wanted",
        )
    },
}


class Watch:
    """A journal as its readers see it after each event."""

    def __init__(self) -> None:
        self._store = QuickStore()
        self._num_events = 0
        self._status = SweepStatus(self._store)
        self._tracker = Calls()
        self._follower: Follower | None = None
        self._waiting: list[Entry] = []

    def apply(self, event: Mapping[str, Any]) -> Json:
        """Take the next event; what the record, `status` and `best` are then, and the calls to the tracker."""
        self._store.write(f"journal/{self._num_events:08d}.json", json.dumps(as_written(event)).encode())
        self._num_events += 1
        try:
            self._status.refresh()
        except NotFoundError:
            record = self._status.record
            return {
                "record": record_form(record),
                "status": None,
                "best": None,
                "tracker": self._follow(event),
            }
        return {
            "record": record_form(self._status.record),
            "status": self._status_form(event["time_ms"] / 1000),
            "best": self._best_form(),
            "tracker": self._follow(event),
        }

    def _status_form(self, now_s: float) -> Json:
        self._status.driver = ""
        lines = self._status.text().splitlines()
        self._status.driver = "process 1"
        with patch.object(status_module.time, "time", lambda: now_s + SECOND_READER_S):
            return {"driven": canonical(self._status.to_json()), "left": lines}

    def _best_form(self) -> Any:
        assert self._status.config is not None
        try:
            with patch.multiple(summary_module, explore=_no_findings, compare=_no_pairs):
                best = recommend(summarize(self._status.config, self._status.record))
        except NotFoundError:
            return "no trial finished"
        return {**canonical(best.to_json()), "text": best.text().splitlines()}

    def _follow(self, event: Mapping[str, Any]) -> list[Any]:
        self._waiting.append(parse(as_written(event), where="the tape"))
        if self._status.config is None:
            return []
        if self._follower is None:
            self._follower = Follower(self._status.config, self._tracker, _Silent())
        self._follower.config = self._tracker.config = self._status.config
        self._follower.follow(self._waiting)
        self._waiting = []
        return canonical(self._tracker.take())


def as_written(value: Any) -> Any:
    """An event as a journal holds it: the tape has a word for a number that is none, the journal has NaN."""
    if isinstance(value, Mapping):
        return {key: as_written(item) for key, item in value.items()}
    if isinstance(value, list):
        return [as_written(item) for item in value]
    return float(value) if isinstance(value, str) and value in ("nan", "inf", "-inf") else value


def _no_findings(*args: Any) -> None:
    """The surface over what masks really hide, which takes seconds and decides nothing, is left out."""


def _no_pairs(*args: Any, **more: Any) -> tuple[()]:
    """So are the comparisons of pairs."""
    return ()


class _Silent:
    def on_event(self, entry: Entry, record: SweepRecord) -> None: ...

    def on_message(self, text: str) -> None: ...


class Calls(MemoryTracker):
    """A tracker that remembers the calls that were made of it, in order."""

    def __init__(self) -> None:
        super().__init__()
        self.config = default_config()
        self._calls: list[Any] = []
        self.start_sweep("s", "s", {}, {})

    def take(self) -> list[Any]:
        found, self._calls = self._calls, []
        return found

    def start_trial(self, trial_id: str, *args: Any, **more: Any) -> None:
        self._calls.append(["start_trial", trial_id, *args, more])
        super().start_trial(trial_id, *args, **more)

    def log_rows(self, trial_id: str | None, rows: Sequence[Row]) -> None:
        told = [[row.images, row.timestamp_ms, dict(row.metrics)] for row in rows]
        self._calls.append(["log_rows", trial_id, told])
        super().log_rows(trial_id, rows)

    def log_artifact(self, trial_id: str | None, path: str, data: bytes) -> None:
        self._calls.append(["log_artifact", trial_id, path, self._differing(json.loads(data))])
        super().log_artifact(trial_id, path, data)

    def set_tags(self, trial_id: str | None, tags: Mapping[str, str]) -> None:
        self._calls.append(["set_tags", trial_id, dict(tags)])
        super().set_tags(trial_id, tags)

    def log_dataset(self, trial_id: str | None, dataset: Dataset) -> None:
        self._calls.append(["log_dataset", trial_id, asdict(dataset)])
        super().log_dataset(trial_id, dataset)

    def finish_trial(self, trial_id: str, status: RunStatus, *, time_ms: int | None = None) -> None:
        self._calls.append(["finish_trial", trial_id, status.value, time_ms])
        super().finish_trial(trial_id, status, time_ms=time_ms)

    def _differing(self, settings: Mapping[str, Any]) -> Json:
        """The settings of a trial that are not the sweep's."""
        own = json.loads(json.dumps(flat_config(self.config)))
        return {key: value for key, value in settings.items() if own.get(key) != value}


def record_form(record: SweepRecord) -> Json:
    """What is known of a sweep, in names of the tape's own."""
    return canonical(
        {
            "sweep": record.sweep_id,
            "name": record.name,
            "state": record.state,
            "is_exhausted": record.is_exhausted,
            "num_configs": len(record.earlier_config_texts) + 1,
            "folder": record.folder,
            "environment": record.environment,
            "data": record.data,
            "notes": record.notes,
            "lengths": record.lengths,
            "origin": record.origin,
            "seed_rounds": len(record.seed_rounds),
            "generations": len(record.generations),
            "warm_start": record.warm_start is not None,
            "started_ms": record.started_ms,
            "ended_ms": record.ended_ms,
            "last_ms": record.last_ms,
            "idle_ms": record.idle_ms,
            "slots": {
                slot.slot_id: {
                    "is_open": slot.is_open,
                    "gpus_cpus": slot.sizes,
                    "periods": slot.periods,
                }
                for slot in record.slots.values()
            },
            "trials": {trial.trial_id: _trial_form(trial) for trial in record.in_order()},
        }
    )


def _trial_form(trial: TrialRecord) -> Json:
    return {
        "index": trial.index,
        "axes": list(trial.point),
        "point": trial.point,
        "settings": trial.settings,
        "seed": trial.seed,
        "name": trial.name,
        "state": trial.state,
        "shown_state": trial.shown_state,
        "waits_at": trial.waits_at,
        "reason": trial.reason,
        "images": trial.images,
        "total_images": trial.total_images,
        "metrics": trial.metrics,
        "history": trial.history,
        "timestamps_ms": trial.timestamps_ms,
        "reported_by": trial.reported_by,
        "rungs": trial.rungs,
        "decisions": trial.decisions,
        "correct": trial.correct,
        "revived": trial.revived,
        "was_extended": trial.was_extended,
        "took_over": [[each.images, each.parent] for each in trial.takeovers],
        "longest_gap_s": trial.longest_gap_s,
        "energy_j": trial.energy_j,
        "gpu_hours": trial.hours.gpu,
        "cpu_core_hours": trial.hours.cpu_core,
        "attempts": {
            attempt.attempt_id: {
                "slot": attempt.slot_id,
                "gpus_cpus": [attempt.num_gpus, attempt.num_cpus],
                "started": attempt.started,
                "last_seen": attempt.last_seen,
                "last_report": attempt.last_report,
                "start_s": attempt.start_s,
                "ended": attempt.ended,
                "error": attempt.error,
            }
            for attempt in trial.attempts.values()
        },
    }


def _plan_json(trial: TrialPlan) -> Json:
    return {
        "trial_id": trial.trial_id,
        "index": trial.index,
        "point": trial.point,
        "seed": trial.seed,
        "name": trial.name,
    }


def _beside(config: RunConfig, other: RunConfig) -> Json:
    """The settings that are not the other one's."""
    known = flat_config(other)
    return {key: value for key, value in flat_config(config).items() if known.get(key) != value}
