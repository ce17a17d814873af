"""What happens to a sweep: commands, budgets, lost workers, late answers, lost writes."""

from __future__ import annotations

from .cluster import Cluster, Failure
from .curves import RATE, Curves
from .play import Session
from .scripts_common import CURVES, LAST, Json, rates


def revive() -> Session:
    """A trial that halving stopped and one that failed go on to their ends."""
    asha = {"variant": "stopping", "first_rung_images": 100, "reduction_factor": 2}
    session = Session("revive", {"own": rates(4, sweep__asha=asha, train__max_failures=0)})
    falling = Curves(total_images=400, final=lambda point, seed: 60 - 2000 * point[RATE])
    cluster = Cluster(session, falling)
    plan = cluster.begin("own")
    first, last = plan[0]["trial_id"], plan[3]["trial_id"]
    cluster.fails = lambda job, images: (
        Failure("out of memory") if job["trial_id"] == first and images == 300 else None
    )
    cluster.submit(plan)
    cluster.finish()
    cluster.fails = lambda job, images: None
    session.send("check_resume", config="own", revive=["7"])
    found = session.send("check_resume", config="own", revive=["0", last])
    plan = cluster.begin("own")
    for trial_id in found["revive"]:
        session.send("revive", trial_id=trial_id)
    cluster.submit(plan)
    cluster.finish()
    return session


def cancel() -> Session:
    """Cancelled half-way: what runs stops with its checkpoint, the rest is ended; more to do goes on."""
    session = Session("cancel", {"own": rates(4), "wider": rates(5)})
    cluster = Cluster(session, CURVES)
    cluster.submit(cluster.begin("own"))
    cluster.start()
    cluster.run(lambda: len(cluster.sent) == 5)
    session.send("stop_all", reason="cancelled")
    session.send("is_stopping")
    cluster.run()
    session.send("cancel_rest")
    cluster.end("cancelled")
    session.send("check_resume", config="own")
    session.send("check_resume", config="wider")
    cluster.play("wider")
    return session


def pause_at_a_rung() -> Session:
    """Paused while trials wait at a rung; goes on."""
    asha = {"first_rung_images": 100, "reduction_factor": 2}
    session = Session("pause_at_a_rung", {"own": rates(4, sweep__asha=asha)})
    cluster = Cluster(session, CURVES)
    cluster.submit(cluster.begin("own"))
    cluster.start()
    cluster.run(lambda: len(cluster.checkpoints) >= 2)
    session.send("stop_all", reason="paused")
    cluster.run()
    cluster.end("paused")
    cluster.play("own")
    return session


def budget_enlarged() -> Session:
    """Trials wait at rungs when the budget is spent; a larger one goes on from there."""
    asha = {"first_rung_images": 100, "reduction_factor": 2}
    small = rates(8, sweep__asha=asha, budget__gpu_hours=0.045, budget__price_per_gpu_hour=2.0)
    large = rates(8, sweep__asha=asha, budget__gpu_hours=0.5, budget__price_per_gpu_hour=2.0)
    session = Session("budget_enlarged", {"small": small, "large": large})
    cluster = Cluster(session, CURVES)
    for name in ("small", "large"):
        cluster.play(name)
    return session


def budget_of_stopping_halving() -> Session:
    """Trials are told at a rung to wait for what others leave; a larger budget goes on."""
    asha = {"variant": "stopping", "first_rung_images": 100, "reduction_factor": 2}
    small = rates(8, sweep__asha=asha, budget__gpu_hours=0.055)
    large = rates(8, sweep__asha=asha, budget__gpu_hours=0.5)
    session = Session("budget_of_stopping_halving", {"small": small, "large": large})
    cluster = Cluster(session, CURVES)
    for name in ("small", "large"):
        cluster.play(name)
    return session


def resize() -> Session:
    """Slots start again with more workers, one at a time, and their trials go first."""
    settings = rates(4, train__num_workers=2, train__min_workers=1)
    session = Session("resize", {"own": settings})
    cluster = Cluster(session, CURVES)
    cluster.submit(cluster.begin("own"))
    cluster.start()
    session.send("resize", slot_id="slot-0", num_workers=2)
    cluster.run(lambda: len(cluster.sent) >= 3)
    session.send("resize", slot_id="slot-0", num_workers=2)
    session.send("resize", slot_id="slot-1", num_workers=2)
    cluster.run(lambda: len(cluster.sent) >= 8)
    session.send("resize", slot_id="slot-1", num_workers=2)
    cluster.run()
    cluster.end()
    return session


def dead_workers() -> Session:
    """Attempts fail, fail for good and fail too often; workers die; an attempt that was given up still reports."""
    session = Session("dead_workers", {"own": rates(5, train__max_failures=2)})
    cluster = Cluster(session, CURVES)
    plan = cluster.begin("own")
    names = [trial["trial_id"] for trial in plan]
    planned = {
        (names[0], 200): [Failure("out of memory")],
        (names[1], 300): [Failure("a node died", takes_slot=True), Failure("again", takes_slot=True)],
        (names[2], 100): [Failure("no such image", permanent=True)],
        (names[3], 400): [Failure(f"time {number}") for number in range(3)],
    }

    def fails(job: Json, images: int) -> Failure | None:
        left = planned.get((job["trial_id"], images))
        return left.pop(0) if left else None

    cluster.fails = fails
    cluster.submit(plan)
    cluster.start()
    cluster.run(lambda: (names[0], 100) in cluster.sent)
    slot = next(slot for _, _, slot in cluster.queue if slot.job and slot.job["trial_id"] == names[0])
    session.send("slot_failed", slot_id=slot.slot_id)
    session.send("report", attempt_id=slot.attempt_id, **cluster.sent[names[0], 100])
    session.send("attempt_ended", trial_id=names[0], attempt_id=slot.attempt_id)
    slot.job = None
    cluster.run(lambda: (names[4], 200) in cluster.sent)
    slot = next(slot for _, _, slot in cluster.queue if slot.job and slot.job["trial_id"] == names[4])
    session.send("slot_started", slot_id=slot.slot_id, placement_group_id="another group")
    slot.job = None
    cluster.run()
    cluster.end()
    return session


def late_and_missing_evaluations() -> Session:
    """Evaluations come a report late; one is missing at a rung, one at the end, one was measured and is then lost."""
    asha = {"variant": "stopping", "first_rung_images": 200, "reduction_factor": 2}
    settings = rates(4, sweep__asha=asha, probe__every_images=100, probe__beside={"cpus": 1.0, "gpus": 0.5})
    session = Session("late_and_missing_evaluations", {"own": settings})
    cluster = Cluster(session, CURVES)
    plan = cluster.begin("own", evaluates_beside=True)
    names = [trial["trial_id"] for trial in plan]
    held: dict[str, Json] = {}

    def rows(cluster: Cluster, job: Json, images: int, row: Json) -> list[Json]:
        name, metrics = job["trial_id"], dict(row["metrics"])
        if (names.index(name), images) in ((1, 200), (3, 400)):
            metrics = {key: value for key, value in metrics.items() if not key.startswith("probe/")}
            return [{**row, "metrics": {**metrics, "evaluation/missing": 1.0}}]
        if images in (100, 300):
            probed = {key: value for key, value in metrics.items() if key.startswith("probe/")}
            late = {**probed, "evaluation/gpu_s": 1.5, "evaluation/cpu_core_s": 3.0}
            held[name] = {**row, "metrics": late}
            return [{**row, "metrics": {key: metrics[key] for key in metrics if key not in probed}}]
        return [*([held.pop(name)] if name in held else []), row]

    cluster.rows = rows
    cluster.submit(plan)
    cluster.start()
    cluster.run(lambda: (names[3], 200) in cluster.sent)
    busy = next(slot for _, _, slot in cluster.queue if slot.job and slot.job["trial_id"] == names[3])
    lost = cluster.sent[names[3], 200]
    row = {**lost["rows"][-1], "metrics": {"evaluation/missing": 1.0}}
    session.send("report", attempt_id=busy.attempt_id, **{**lost, "rows": [row], "rung": None})
    cluster.run()
    cluster.end()
    return session


def unhealthy() -> Session:
    """One trial's loss is no number, one diverges, one collapses; the last is well."""
    session = Session("unhealthy", {"own": rates(4)})
    cluster = Cluster(session, CURVES)
    plan = cluster.begin("own")
    names = [trial["trial_id"] for trial in plan]

    def rows(cluster: Cluster, job: Json, images: int, row: Json) -> list[Json]:
        sick = {
            0: {"train/loss": float("nan")} if images == 300 else {},
            1: {"train/loss": 1.9} if images >= 200 else {},
            2: {"health/effective_rank": 0.2} if images >= 100 else {},
        }.get(names.index(job["trial_id"]), {})
        return [{**row, "metrics": {**row["metrics"], **sick}}]

    cluster.rows = rows
    cluster.submit(plan)
    cluster.finish()
    return session


def lost_answers() -> Session:
    """Writes are refused, or done and their answers lost; then a second driver takes over and fences the first off."""
    session = Session("lost_answers", {"own": rates(3)})
    cluster = Cluster(session, CURVES)
    cluster.submit(cluster.begin("own"))
    cluster.start()
    for fault, kind, moment in (
        ("refuses", "attempt_started", 0),
        ("loses", "report", 2),
        ("loses", "attempt_ended", 5),
        ("loses", "attempt_started", 7),
        ("refuses", "report", 9),
    ):
        cluster.run(lambda moment=moment: len(cluster.sent) >= moment)  # type: ignore[misc]
        session.send("store", **{fault: kind})
        run_over_errors(cluster)
    cluster.run(lambda: len(cluster.sent) >= 11)
    first = "d001"
    busy = next(slot for _, _, slot in cluster.queue if slot.job is not None)
    assert busy.job is not None
    cluster.submit(cluster.begin("own"))
    second = f"d{session.num_ids:03d}"
    session.send("switch", driver=first)
    session.send("report", attempt_id=busy.attempt_id, **cluster.report_of(busy.job, 400, **LAST))
    session.send("expect", num_trials=0)
    session.send("switch", driver=second)
    cluster.finish()
    return session


def run_over_errors(cluster: Cluster) -> None:
    """Let time pass until an answer was an error."""
    before = len(cluster.session.entries)
    cluster.run(lambda: any("error" in (each["answer"] or {}) for each in cluster.session.entries[before:]))
