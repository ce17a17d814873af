"""Sweeps that code of before began, gone on with today."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from .cluster import Cluster
from .curves import Curves
from .form import read_lines
from .play import Session
from .search import Searching

JOURNALS = Path(__file__).parent / "journals"
"""Journals of 0.1.0, each named after the commit whose code wrote it."""


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
    cluster.play("now")
    return session


def old_budget_goes_on() -> Session:
    """A sweep whose budget was spent goes on under a larger one."""
    session, cluster = old_journal("a46ccb3_budget_of_stopping_halving", 46, budget__gpu_hours=0.5)
    session.send("check_resume", config="now")
    cluster.play("now")
    return session


def old_optuna_goes_on() -> Session:
    """A search that was killed with one trial pending."""
    session, cluster = old_journal("4a86aa1_optuna_killed", 82)
    cluster.num_slots, cluster.curves = 1, Curves(total_images=200)
    cluster.begin("now")
    search = Searching(cluster, num_trials=14, concurrency=1)
    search.start()
    cluster.finish()
    return session
