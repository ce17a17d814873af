"""Sweeps whose points are proposed as they run: populations, Optuna, a Gaussian process, a warm start."""

from __future__ import annotations

from functools import partial

from .cluster import Cluster, Failure
from .curves import METRIC, RATE, Curves, fraction
from .play import Session
from .scripts_common import SMALL, Json, rates, run_plainly
from .search import Searching


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
    cluster.play("own")
    cluster.fails = lambda job, images: None
    session.send("check_resume", config="own", revive=[lost])
    plan = cluster.begin("own")
    session.send("revive", trial_id=lost)
    cluster.submit(plan)
    cluster.finish()
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
    cluster.finish()
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
    cluster.finish()
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
    cluster.finish()
    return session


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
    cluster.finish()
    cluster = Cluster(session, Curves(total_images=400))
    cluster.begin("second", sweep="second")
    session.send("warm_start", source="first")
    search = Searching(cluster, num_trials=4, concurrency=2)
    search.start()
    cluster.finish()
    return session
