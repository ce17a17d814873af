"""Workers that train nothing: they ask for trials, report what `curves` says on a clock of their own, and can fail."""

from __future__ import annotations

import heapq
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from .curves import Curves
from .play import Session

Json = dict[str, Any]
_START_S, _BASELINE_S, _POLL_S = 15.0, 5.0, 20.0
_BETWEEN_DRIVERS_S = 60.0


@dataclass
class Slot:
    """One worker group: the trial it runs, and how far that has come."""

    slot_id: str
    num_workers: int = 1
    job: Json | None = None
    attempt_id: str = ""
    images: int = -1
    is_up: bool = False


@dataclass(frozen=True)
class Failure:
    """What happens to a slot in place of a report."""

    error: str
    permanent: bool = False
    takes_slot: bool = False
    """Whether the workers die, and are started again."""


Rows = Callable[["Cluster", Json, int, Json], Sequence[Json]]


@dataclass
class Cluster:
    """The slots of a sweep; checkpoints outlive the driver.

    `fails(job, images)` says what goes wrong before a report; `rows` changes the rows of one; `points` maps trials to
    point and seed.
    """

    session: Session
    curves: Curves
    num_slots: int = 2
    gpus: float = 1.0
    fails: Callable[[Json, int], Failure | None] = lambda job, images: None
    rows: Rows = lambda cluster, job, images, row: [row]
    points: dict[str, tuple[Mapping[str, Any], int]] = field(default_factory=dict)
    checkpoints: dict[str, int] = field(default_factory=dict)
    sent: dict[tuple[str, int], Json] = field(default_factory=dict)
    queue: list[tuple[float, str, Slot]] = field(default_factory=list)
    on_idle: Callable[[], bool] = lambda: False
    on_ended: Callable[[str], None] = lambda trial_id: None

    def __post_init__(self) -> None:
        self.on_ended = self.tell_outcome

    # The driver's side

    def begin(self, config: str, *, sweep: str = "s", plans: bool = True, **more: Any) -> list[Json]:
        """Open a sweep, or go on with it, and plan what is known beforehand."""
        self.session.now_s += _BETWEEN_DRIVERS_S
        driver = self.session.fresh_id("d")
        is_resumed = bool(
            self.session.send("open", sweep=sweep, driver=driver, config=config, **more)["goes on"]
        )
        plan = self.session.send("plan", config=config, resumed=is_resumed)
        if is_resumed:
            self.session.send("go_on")
        else:
            self.session.send("begin", notes=plan["notes"])
        for trial in plan["trials"] if plans else []:
            self.session.send("plan_trial", **trial)
        return list(plan["trials"])

    def submit(self, trials: Sequence[Json], *, expect: int | None = 0) -> None:
        """Have trials run."""
        for trial in trials:
            self.points[trial["trial_id"]] = trial["point"], trial["seed"]
            self.session.send("submit", **trial)
        self.session.send("expect", num_trials=expect)

    def start(self) -> None:
        """Open every slot."""
        self.queue = []
        for number in range(self.num_slots):
            self.open_slot(Slot(f"slot-{number}"))

    def open_slot(self, slot: Slot) -> None:
        """Ask for a slot's resources."""
        devices = {"num_gpus": self.gpus * slot.num_workers, "num_cpus": 4.0 * slot.num_workers}
        self.session.send("slot_opened", slot_id=slot.slot_id, **devices, num_workers=slot.num_workers)
        slot.job, slot.is_up = None, False
        self._later(_START_S, slot)

    def end(self, state: str = "finished") -> None:
        """Say how the sweep ended."""
        self.session.send("journal", kind="sweep_ended", state=state)

    def finish(self) -> None:
        """Open every slot, let all trials run, and end the sweep."""
        self.start()
        self.run()
        self.end()

    def play(self, config: str) -> None:
        """Begin a sweep, or go on with it, and run to its end what is known beforehand."""
        self.submit(self.begin(config))
        self.finish()

    # The slots' side

    def run(self, until: Callable[[], bool] = lambda: False) -> None:
        """Let time pass until every slot has ended, or something holds."""
        while self.queue and not until():
            self.turn()

    def turn(self) -> None:
        """The next thing that a slot does."""
        self.session.now_s, _, slot = heapq.heappop(self.queue)
        if not slot.is_up:
            slot.is_up = True
            self.session.send(
                "slot_started", slot_id=slot.slot_id, placement_group_id=f"group of {slot.slot_id}"
            )
        if slot.job is None:
            self._take(slot)
        else:
            self._report(slot, slot.job)

    def die(self, slot: Slot, error: str) -> None:
        """A slot's workers die; they are started anew."""
        self.session.send("slot_closed", slot_id=slot.slot_id, error=error)
        self.session.send("slot_wanted")
        self.open_slot(slot)

    def _later(self, after_s: float, slot: Slot) -> None:
        heapq.heappush(self.queue, (round(self.session.now_s + after_s, 3), slot.slot_id, slot))

    def _take(self, slot: Slot) -> None:
        attempt_id = self.session.fresh_id("a")
        answer = self.session.send("next_trial", slot_id=slot.slot_id, attempt_id=attempt_id)
        if answer.get("error"):
            self._later(_POLL_S, slot)
        elif answer["kind"] == "end":
            self._close(slot)
        elif answer["kind"] == "wait":
            if not self.is_busy() and self.on_idle():
                self._later(0.0, slot)
            else:
                self._later(_POLL_S, slot)
        else:
            slot.job, slot.attempt_id = answer["job"], attempt_id
            self._enter(slot, answer["job"])

    def is_busy(self) -> bool:
        """Whether any slot runs a trial."""
        return any(slot.job is not None for _, _, slot in self.queue)

    def _close(self, slot: Slot) -> None:
        self.session.send("slot_closed", slot_id=slot.slot_id, error="")
        if self.session.send("starts_again", slot_id=slot.slot_id):
            slot.num_workers += 1
            self.open_slot(slot)

    def _enter(self, slot: Slot, job: Json) -> None:
        """Begin a trial, or go on from its checkpoint, of which the report is sent again."""
        trial_id, taken = job["trial_id"], job["inherits"]
        slot.images = self.checkpoints.get(trial_id, -1)
        if taken is not None and slot.images <= taken["step"] * job["batch_size"]:
            slot.images = taken["step"] * job["batch_size"]
            self._advance(slot, job)
        elif slot.images < 0:
            slot.images = 0
            self._later(_BASELINE_S, slot)
        elif (trial_id, slot.images) in self.sent and slot.images > 0:
            self._later(1.0, slot)
        else:
            self._advance(slot, job)

    def _advance(self, slot: Slot, job: Json) -> None:
        stops = [stop[0] for stop in job["stops"] if stop[0] > slot.images]
        speed = self.curves.speed(self.point_of(job)) * slot.num_workers
        seconds = (stops[0] - slot.images) / speed
        slot.images = stops[0]
        self._later(seconds, slot)

    def _report(self, slot: Slot, job: Json) -> None:
        failure = self.fails(job, slot.images)
        if failure is not None:
            self._fail(slot, job, failure)
            return
        stop = next((stop for stop in job["stops"] if stop[0] == slot.images), [0, True, False, None, False])
        _, probe, saves, rung, final = stop
        report = self.sent.setdefault(
            (job["trial_id"], slot.images),
            self.report_of(job, slot.images, probe=probe, rung=rung, final=final),
        )
        if saves:
            self.checkpoints[job["trial_id"]] = slot.images
        answer = self.session.send("report", attempt_id=slot.attempt_id, **report)
        if answer.get("action") == "continue" and not final:
            self._advance(slot, job)
            return
        if "error" in answer:
            self._fail(slot, job, Failure(error=answer["error"]))
            return
        self.checkpoints[job["trial_id"]] = slot.images
        self._ended(slot, job)

    def point_of(self, job: Json) -> Json:
        """The point of a trial, with what a member of a population has taken over."""
        point, _ = self.points[job["trial_id"]]
        return {key: job["settings"].get(key, value) for key, value in point.items()}

    def report_of(self, job: Json, images: int, *, probe: bool, rung: int | None, final: bool) -> Json:
        """What a worker says at a stop."""
        point, seed = self.point_of(job), self.points[job["trial_id"]][1]
        row = {
            "images": images,
            "timestamp_ms": int(1000 * self.session.now_s),
            "metrics": self.curves.metrics(point, seed, images, probe=probe),
        }
        return {
            "trial_id": job["trial_id"],
            "images": images,
            "rows": list(self.rows(self, job, images, row)),
            "rung": rung,
            "final": final,
            "checkpoint": None,
            "correct": self.curves.correct(point, seed, images) if final else {},
        }

    def _fail(self, slot: Slot, job: Json, failure: Failure) -> None:
        if failure.takes_slot:
            self.die(slot, failure.error)
            return
        self._ended(slot, job, error=failure.error, permanent=failure.permanent)

    def _ended(self, slot: Slot, job: Json, **outcome: Any) -> None:
        self.session.send("attempt_ended", trial_id=job["trial_id"], attempt_id=slot.attempt_id, **outcome)
        slot.job = None
        self._later(0.0, slot)
        self.on_ended(job["trial_id"])

    def tell_outcome(self, trial_id: str) -> None:
        """Ask what a search hears of a trial."""
        self.session.send("outcome", trial_id=trial_id)
