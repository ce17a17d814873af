"""The scripts that are recorded: one function each, which plays a sweep and returns what was said and answered."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from .cluster import Cluster, Failure
from .curves import METRIC, RATE, Curves, Point, fraction
from .form import read_lines
from .play import Session
from .search import Searching

Json = dict[str, Any]

JOURNALS = Path(__file__).parent / "journals"
"""Journals of 0.1.0, each named after the commit whose code wrote it."""

SMALL = {
    "name": "tape",
    "encoder.image_size_px": 32,
    "encoder.patch_size_px": 4,
    "encoder.width": 32,
    "encoder.depth": 2,
    "encoder.num_heads": 2,
    "predictor.width": 16,
    "predictor.depth": 1,
    "predictor.num_heads": 2,
    "train.images": 400,
    "train.batch_size": 10,
    "train.report_every_images": 100,
    "train.checkpoint_every_images": 200,
    "probe.every_images": 200,
    "probe.train_images": 40,
    "probe.test_images": 64,
}

DEMO = {
    **SMALL,
    "name": "masks",
    "data.crop_scale": [0.5, 1.0],
    "encoder.name": "vit_tiny_patch16_224",
    "encoder.image_size_px": 48,
    "encoder.patch_size_px": 6,
    "encoder.width": 64,
    "encoder.depth": 4,
    "encoder.num_heads": 4,
    "predictor.width": 32,
    "predictor.depth": 2,
    "masks.num_target_blocks": 4,
    "masks.min_target_patches": 2,
    "masks.context_keep": 0.25,
    "optimizer.learning_rate": 2.0e-3,
    "ema.start_momentum": 0.99,
    "train.images": 24000,
    "train.batch_size": 48,
    "train.report_every_images": 4800,
    "train.checkpoint_every_images": 12000,
    "probe.every_images": 12000,
    "sweep.search": "grid",
    "sweep.metric": METRIC,
    "sweep.space": {
        "masks.target_scale": {"choices": [[0.08, 0.12], [0.15, 0.2], [0.22, 0.25]]},
        "masks.target_aspect_ratio": {"choices": [[0.75, 1.5], [2.0, 3.0]]},
    },
}
"""The demo's grid as it was when this was written; `sweeps/masks.yaml` may change."""


def rates(count: int, **more: Any) -> Json:
    """Settings of a grid over learning rates, 0.001 to 0.001 * count."""
    choices = [round(0.001 * number, 6) for number in range(1, count + 1)]
    named = {key.replace("__", "."): value for key, value in more.items()}
    return {**SMALL, "sweep.space": {RATE: {"choices": choices}}, **named}


def by_rate(point: Point, seed: int, *, finals: Mapping[float, float], luck: float = 0.5) -> float:
    """Final accuracy given by learning rate; every further seed is a little above or below."""
    return finals[point[RATE]] + luck * (seed % 2) - luck * (seed == 2)


def rising(point: Point, seed: int) -> float:
    """The higher the rate the better."""
    return 40 + 2000 * float(point[RATE]) + 0.25 * seed


CURVES = Curves(total_images=400, final=rising)


def run_plainly(name: str, settings: Json, curves: Curves = CURVES, **more: Any) -> Session:
    """A sweep whose trials are known beforehand, from its start to its end."""
    session = Session(name, {"own": settings})
    cluster = Cluster(session, curves, **more)
    cluster.submit(cluster.begin("own"))
    cluster.start()
    cluster.run()
    cluster.end()
    return session


def demo_grid() -> Session:
    return run_plainly("demo_grid", DEMO, Curves(total_images=24000, images_per_s=400), gpus=0.0)


def three_seeds() -> Session:
    return run_plainly("three_seeds", rates(3, sweep__seeds=3))


def seeds_auto() -> Session:
    """Four geometries; two drop out, the others get a second and a third seed."""
    finals = {0.001: 44.0, 0.002: 58.0, 0.003: 60.0, 0.004: 50.0}
    curves = Curves(total_images=400, final=partial(by_rate, finals=finals))
    session = Session("seeds_auto", {"own": rates(4, sweep__seeds="auto", sweep__max_seeds=3)})
    cluster = Cluster(session, curves)
    cluster.submit(cluster.begin("own"), expect=None)
    cluster.on_idle = partial(more_seeds, cluster)
    cluster.start()
    cluster.run()
    cluster.end()
    return session


def more_seeds(cluster: Cluster) -> bool:
    """What the driver does when nothing runs; whether there is more to do."""
    answer = cluster.session.send("next_seeds")
    if not answer["trials"]:
        cluster.session.send("expect", num_trials=0)
        return True
    trials = cluster.session.send("make_trials", trials=answer["trials"])
    cluster.submit(trials, expect=None)
    return True


def halving_stopping_brackets() -> Session:
    asha = {"variant": "stopping", "first_rung_images": 100, "reduction_factor": 2, "brackets": 2}
    settings = rates(8, sweep__asha=asha)
    return run_plainly("halving_stopping_brackets", settings, Curves(total_images=400), num_slots=3)


def promotion_two_seeds() -> Session:
    asha = {"first_rung_images": 100, "reduction_factor": 2}
    return run_plainly("promotion_two_seeds", rates(4, sweep__asha=asha, sweep__seeds=2))


def promotion_killed_at_a_rung() -> Session:
    """The driver dies while trials wait at a rung, and its successor goes on."""
    asha = {"first_rung_images": 100, "reduction_factor": 3}
    session = Session("promotion_killed_at_a_rung", {"own": rates(6, sweep__asha=asha)})
    cluster = Cluster(session, CURVES)
    cluster.submit(cluster.begin("own"))
    cluster.start()
    cluster.run(lambda: len(cluster.checkpoints) == 4)
    cluster.submit(cluster.begin("own"))
    cluster.start()
    cluster.run()
    cluster.end()
    return session


def population() -> Session:
    """Members whose order changes from generation to generation, so that donors take over in their turn."""
    settings = {
        **SMALL,
        "sweep.search": "random",
        "sweep.num_trials": 6,
        "sweep.space": {RATE: {"log_uniform": [1e-4, 1.0]}},
        "sweep.pbt": {"every_images": 100, "replaced_fraction": 0.34},
    }

    def rows(cluster: Cluster, job: Json, images: int, row: Json) -> list[Json]:
        metrics = dict(row["metrics"])
        if METRIC in metrics:
            metrics[METRIC] = round(metrics[METRIC] + 20 * fraction(2, job["trial_id"], images), 3)
        return [{**row, "metrics": metrics}]

    return run_plainly("population", settings, Curves(total_images=400), rows=rows)


def population_killed() -> Session:
    """A driver dies between two members of a generation; one member fails for good; one is revived."""
    settings = {
        **SMALL,
        "sweep.search": "random",
        "sweep.num_trials": 5,
        "sweep.space": {RATE: {"log_uniform": [1e-4, 1.0]}, "ema.final_momentum": {"uniform": [0.9, 1.0]}},
        "sweep.pbt": {"every_images": 100, "replaced_fraction": 0.4},
    }
    session = Session("population_killed", {"own": settings})
    cluster = Cluster(session, Curves(total_images=400))
    plan = cluster.begin("own")
    lost = plan[3]["trial_id"]
    cluster.fails = lambda job, images: (
        Failure("broken", permanent=True) if job["trial_id"] == lost and images == 100 else None
    )
    cluster.submit(plan)
    cluster.start()
    cluster.run(lambda: sorted(cluster.checkpoints.values())[-3:] == [200, 200, 200])
    cluster.submit(cluster.begin("own"))
    cluster.start()
    cluster.run()
    cluster.end()
    cluster.fails = lambda job, images: None
    session.send("check_resume", config="own", revive=[lost])
    plan = cluster.begin("own")
    session.send("revive", trial_id=lost)
    cluster.submit(plan)
    cluster.start()
    cluster.run()
    cluster.end()
    return session


def optuna_killed() -> Session:
    """Optuna proposes; the driver is killed with one trial pending; its successor asks for that first."""
    settings = {
        **SMALL,
        "train.images": 200,
        "sweep.search": "optuna",
        "sweep.num_trials": 14,
        "sweep.space": {
            RATE: {"log_uniform": [1e-4, 1e-1]},
            "masks.num_target_blocks": {"choices": [2, 3, 4]},
        },
    }
    session = Session("optuna_killed", {"own": settings})
    cluster = Cluster(session, Curves(total_images=200), num_slots=1)
    cluster.begin("own")
    search = Searching(cluster, num_trials=14, concurrency=1)
    search.start()
    cluster.start()
    cluster.run(lambda: search.num_heard == 11 and cluster.is_busy())
    cluster.begin("own")
    search = Searching(cluster, num_trials=14, concurrency=1)
    search.start()
    cluster.start()
    cluster.run()
    cluster.end()
    return session


def optuna_halving_and_seeds() -> Session:
    """Optuna under halving that stops, then two further seeds of what finished."""
    settings = {
        **SMALL,
        "sweep.search": "optuna",
        "sweep.num_trials": 5,
        "sweep.seeds": [3, 4],
        "sweep.asha": {"first_rung_images": 100, "reduction_factor": 2},
        "sweep.space": {RATE: {"log_uniform": [1e-4, 1e-1]}},
    }
    session = Session("optuna_halving_and_seeds", {"own": settings})
    cluster = Cluster(session, Curves(total_images=400))
    cluster.begin("own")
    search = Searching(cluster, num_trials=5, concurrency=2, is_last=False)
    search.start()
    cluster.on_idle = partial(repeat_once, cluster, [])
    cluster.start()
    cluster.run()
    cluster.end()
    return session


def repeat_once(cluster: Cluster, done: list[bool]) -> bool:
    """Submit what the other seeds repeat, the first time."""
    trials = [] if done else cluster.session.send("repeats")
    done.append(True)
    if trials:
        cluster.on_ended = cluster.tell_outcome
        cluster.submit(trials)
    return bool(trials)


def gp_trade_off() -> Session:
    settings = {
        **SMALL,
        "train.images": 200,
        "sweep.search": "gp",
        "sweep.num_trials": 12,
        "sweep.trade_off": "gpu_hours",
        "sweep.space": {RATE: {"log_uniform": [1e-4, 1e-1]}, "ema.final_momentum": {"uniform": [0.9, 1.0]}},
    }
    session = Session("gp_trade_off", {"own": settings})
    cluster = Cluster(session, Curves(total_images=200))
    cluster.begin("own")
    search = Searching(cluster, num_trials=12, concurrency=2, tells_hours=True)
    search.start()
    cluster.start()
    cluster.run()
    cluster.end()
    return session


def extended_longer_and_wider() -> Session:
    """A finished sweep goes on with more images, more choices and one more seed, under halving."""
    asha = {"variant": "stopping", "first_rung_images": 100, "reduction_factor": 2}
    first = rates(3, sweep__asha=asha)
    longer = rates(3, sweep__asha=asha, train__images=600)
    wider = rates(4, sweep__asha=asha, train__images=600, sweep__seeds=2)
    session = Session("extended_longer_and_wider", {"first": first, "longer": longer, "wider": wider})
    cluster = Cluster(session, Curves(total_images=600, final=rising))
    for name in ("first", "longer", "wider"):
        if name != "first":
            session.send("check_resume", config=name)
        cluster.submit(cluster.begin(name))
        cluster.start()
        cluster.run()
        cluster.end()
    session.send("check_resume", config="first")
    return session


def wider_range_of_a_drawn_space() -> Session:
    """Random points stay when a range becomes wider and more are drawn."""
    base = {**SMALL, "sweep.search": "random"}
    first = {**base, "sweep.num_trials": 2, "sweep.space": {RATE: {"log_uniform": [1e-3, 1e-2]}}}
    wider = {**base, "sweep.num_trials": 4, "sweep.space": {RATE: {"log_uniform": [1e-4, 1e-1]}}}
    session = Session("wider_range_of_a_drawn_space", {"first": first, "wider": wider})
    cluster = Cluster(session, Curves(total_images=400))
    for name in ("first", "wider"):
        if name != "first":
            session.send("check_resume", config=name)
        cluster.submit(cluster.begin(name))
        cluster.start()
        cluster.run()
        cluster.end()
    return session


def changed_configuration() -> Session:
    """Interrupted, refused under other trials, and gone on with under other rules of health and retries."""
    first = rates(3)
    other = rates(3, encoder__depth=3, train__batch_size=20)
    fewer = rates(2)
    allowed = rates(3, train__max_failures=0, health__max_loss_ratio=5.0, train__report_every_images=200)
    configs = {"first": first, "other": other, "fewer": fewer, "allowed": allowed}
    session = Session("changed_configuration", configs)
    cluster = Cluster(session, CURVES)
    plan = cluster.begin("first")
    cluster.submit(plan)
    cluster.start()
    cluster.run(lambda: sum(cluster.checkpoints.values()) >= 400)
    session.send("stop_all", reason="interrupted")
    cluster.run()
    cluster.end("interrupted")
    for name in ("other", "fewer", "allowed"):
        session.send("check_resume", config=name)
    cluster.fails = lambda job, images: (
        Failure("out of memory") if job["trial_id"] == plan[1]["trial_id"] and images == 400 else None
    )
    cluster.submit(cluster.begin("allowed"))
    cluster.start()
    cluster.run()
    cluster.end()
    return session


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
    cluster.start()
    cluster.run()
    cluster.end()
    cluster.fails = lambda job, images: None
    session.send("check_resume", config="own", revive=["7"])
    found = session.send("check_resume", config="own", revive=["0", last])
    plan = cluster.begin("own")
    for trial_id in found["revive"]:
        session.send("revive", trial_id=trial_id)
    cluster.submit(plan)
    cluster.start()
    cluster.run()
    cluster.end()
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
    cluster.submit(cluster.begin("wider"))
    cluster.start()
    cluster.run()
    cluster.end()
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
    cluster.submit(cluster.begin("own"))
    cluster.start()
    cluster.run()
    cluster.end()
    return session


def budget_enlarged() -> Session:
    """Trials wait at rungs when the budget is spent; a larger one goes on from there."""
    asha = {"first_rung_images": 100, "reduction_factor": 2}
    small = rates(8, sweep__asha=asha, budget__gpu_hours=0.045, budget__price_per_gpu_hour=2.0)
    large = rates(8, sweep__asha=asha, budget__gpu_hours=0.5, budget__price_per_gpu_hour=2.0)
    session = Session("budget_enlarged", {"small": small, "large": large})
    cluster = Cluster(session, CURVES)
    for name in ("small", "large"):
        cluster.submit(cluster.begin(name))
        cluster.start()
        cluster.run()
        cluster.end()
    return session


def budget_of_stopping_halving() -> Session:
    """Trials are told at a rung to wait for what others leave; a larger budget goes on."""
    asha = {"variant": "stopping", "first_rung_images": 100, "reduction_factor": 2}
    small = rates(8, sweep__asha=asha, budget__gpu_hours=0.055)
    large = rates(8, sweep__asha=asha, budget__gpu_hours=0.5)
    session = Session("budget_of_stopping_halving", {"small": small, "large": large})
    cluster = Cluster(session, CURVES)
    for name in ("small", "large"):
        cluster.submit(cluster.begin(name))
        cluster.start()
        cluster.run()
        cluster.end()
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
    cluster.start()
    cluster.run()
    cluster.end()
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
    cluster.start()
    cluster.run()
    cluster.end()
    return session


LAST = {"probe": True, "rung": None, "final": True}


def run_over_errors(cluster: Cluster) -> None:
    """Let time pass until an answer was an error."""
    before = len(cluster.session.entries)
    cluster.run(lambda: any("error" in (each["answer"] or {}) for each in cluster.session.entries[before:]))


def warm_start() -> Session:
    """A search begins with what an earlier sweep found; what does not count is said."""
    asha = {"variant": "stopping", "first_rung_images": 100, "reduction_factor": 2}
    first = rates(6, sweep__asha=asha, sweep__seeds=2)
    second = {
        **SMALL,
        "sweep.search": "optuna",
        "sweep.num_trials": 4,
        "sweep.warm_start": "first",
        "sweep.space": {RATE: {"log_uniform": [5e-3, 1e-1]}},
    }
    session = Session("warm_start", {"first": first, "second": second})
    cluster = Cluster(session, Curves(total_images=400))
    cluster.submit(cluster.begin("first", sweep="first"))
    cluster.start()
    cluster.run()
    cluster.end()
    cluster = Cluster(session, Curves(total_images=400))
    cluster.begin("second", sweep="second")
    session.send("warm_start", source="first")
    search = Searching(cluster, num_trials=4, concurrency=2)
    search.start()
    cluster.start()
    cluster.run()
    cluster.end()
    return session


def old_journal(name: str, num_events: int, **changed: Any) -> tuple[Session, Cluster]:
    """A session in which the beginning of a journal of an earlier version lies, and slots to go on with it."""
    events = [entry["event"] for entry in list(read_lines(JOURNALS / f"{name}.jsonl.gz"))[1 : 1 + num_events]]
    text = next(event["config"] for event in events if event["kind"] == "sweep_started")
    settings = {"text": text, **{key.replace("__", "."): value for key, value in changed.items()}}
    session = Session(f"{name}_goes_on", {"before": {"text": text}, "now": settings})
    cluster = Cluster(session, Curves(total_images=400))
    session.now_s = max(event["time_ms"] for event in events) / 1000
    for event in events:
        if event["kind"] == "report":
            cluster.checkpoints[event["trial_id"]] = event["images"]
    session.send("load", sweep="s", events=events)
    return session, cluster


def old_halving_goes_on() -> Session:
    """A sweep of the first day, killed among its rungs."""
    session, cluster = old_journal("06722ed_halving_stopping_brackets", 40)
    session.send("check_resume", config="now")
    cluster.submit(cluster.begin("now"))
    cluster.start()
    cluster.run()
    cluster.end()
    return session


def old_budget_goes_on() -> Session:
    """A sweep whose budget was spent goes on under a larger one."""
    session, cluster = old_journal("a46ccb3_budget_of_stopping_halving", 46, budget__gpu_hours=0.5)
    session.send("check_resume", config="now")
    cluster.submit(cluster.begin("now"))
    cluster.start()
    cluster.run()
    cluster.end()
    return session


def old_optuna_goes_on() -> Session:
    """A search that was killed with one trial pending."""
    session, cluster = old_journal("4a86aa1_optuna_killed", 82)
    cluster.num_slots, cluster.curves = 1, Curves(total_images=200)
    cluster.begin("now")
    search = Searching(cluster, num_trials=14, concurrency=1)
    search.start()
    cluster.start()
    cluster.run()
    cluster.end()
    return session


def plans() -> Session:
    """What is planned of random and Sobol draws, listed points, conditional and tied axes, equal geometries, a cap."""
    drawn = {"sweep.num_trials": 3, "sweep.search_seed": 5}
    masks = {
        "masks.target_scale": {"center": [0.1, 0.3], "width": 0.05},
        "masks.target_aspect_ratio": {"center_ratio": [0.5, 2.0], "spread": [1.1, 1.5]},
    }
    methods = {
        "objective.name": {"choices": ["ijepa", "mae"]},
        "objective.mask_fraction": {"uniform": [0.5, 0.9], "when": {"objective.name": "mae"}},
        "train.batch_size": {"choices": [64, 128], "also": {"optimizer.learning_rate": {"times": 1e-5}}},
    }
    equal = {"masks.target_scale": {"choices": [[0.15, 0.2], [0.151, 0.2], [0.3, 0.4]]}}
    listed = [
        {"name": "paper", "set": {"masks.num_target_blocks": 4}, "published": 67.1},
        {"name": "one", "set": {"masks.num_target_blocks": 1, "masks.target_scale": [0.3, 0.4]}},
    ]
    configs = {
        "random": {**SMALL, **drawn, "sweep.search": "random", "sweep.space": masks},
        "sobol": {**SMALL, **drawn, "sweep.search": "sobol", "sweep.space": masks, "sweep.seeds": 2},
        "conditional": {
            **SMALL,
            **drawn,
            "sweep.num_trials": 6,
            "sweep.search": "random",
            "sweep.space": methods,
        },
        "equal": {**SMALL, "sweep.space": equal},
        "capped": rates(5, sweep__num_trials=3),
        "listed": {**SMALL, "sweep.points": listed},
        "alone": dict(SMALL),
    }
    session = Session("plans", configs)
    for name in configs:
        session.send("plan", config=name)
    cluster = Cluster(session, CURVES)
    cluster.curves = Curves(total_images=400)
    cluster.submit(cluster.begin("listed"))
    cluster.start()
    cluster.run()
    cluster.end()
    return session


SCENARIOS: dict[str, Callable[[], Session]] = {
    scenario.__name__: scenario
    for scenario in (
        demo_grid,
        three_seeds,
        seeds_auto,
        halving_stopping_brackets,
        promotion_two_seeds,
        promotion_killed_at_a_rung,
        population,
        population_killed,
        optuna_killed,
        optuna_halving_and_seeds,
        gp_trade_off,
        extended_longer_and_wider,
        wider_range_of_a_drawn_space,
        changed_configuration,
        revive,
        cancel,
        pause_at_a_rung,
        budget_enlarged,
        budget_of_stopping_halving,
        resize,
        dead_workers,
        late_and_missing_evaluations,
        unhealthy,
        lost_answers,
        warm_start,
        old_halving_goes_on,
        old_budget_goes_on,
        old_optuna_goes_on,
        plans,
    )
}
