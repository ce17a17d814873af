import threading
from pathlib import Path

import pytest
from examples import examples
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.errors import TrackingError
from orchestrator.protocol.reports import Row
from orchestrator.tracking import Links, MemoryTracker, RunStatus, SpooledTracker

LINKS = Links(tracking_uri="memory:", experiment="memory")


class Store(MemoryTracker):
    """The in-memory tracker as a destination."""

    def select_sweep(self, sweep_id: str) -> None:
        self._check()
        self.sweep_id = sweep_id

    def reachable(self) -> bool:
        return self.available


def open_spool(store: Store, folder: Path) -> SpooledTracker:
    return SpooledTracker(lambda: store, folder, links=LINKS)


def row(step: int, **metrics: float) -> Row:
    return Row(images=step, timestamp_ms=step * 1000, metrics=metrics)


def values(store: Store, trial_id: str, key: str) -> list[float]:
    return [value for value, _ in store.runs[trial_id].metrics[key].values()]


def start(tracker: SpooledTracker) -> None:
    tracker.start_sweep("s", "sweep", {}, {})
    tracker.start_trial("t0", "trial", {"masks.target_scale": (0.1, 0.2)}, {"a": "b"}, time_ms=7)


def test_calls_arrive_in_order_with_their_times(tmp_path):
    store = Store()
    tracker = open_spool(store, tmp_path)
    start(tracker)
    for step in range(50):
        tracker.log_rows("t0", [row(step, loss=float(step))])
    tracker.finish_trial("t0", RunStatus.FINISHED, time_ms=9)
    tracker.close()
    assert values(store, "t0", "loss") == [float(step) for step in range(50)]
    run = store.runs["t0"]
    assert (run.status, run.started_ms, run.ended_ms) == (RunStatus.FINISHED, 7, 9)
    assert run.params["masks.target_scale.mid"] == "0.15"


def test_an_outage_holds_nothing_up_and_loses_nothing(tmp_path):
    store = Store()
    tracker = open_spool(store, tmp_path)
    start(tracker)
    assert tracker.flush(10)
    store.available = False
    tracker.log_rows("t0", [row(1, loss=1.0)])
    tracker.log_artifact("t0", "a.txt", b"text")
    assert not tracker.flush(0.2)
    assert tracker.links().pending == 2
    store.available = True
    assert tracker.flush(10)
    tracker.close()
    assert values(store, "t0", "loss") == [1.0]
    assert store.runs["t0"].artifacts == {"a.txt": b"text"}


def test_what_a_dead_process_left_is_delivered_by_the_next(tmp_path):
    store = Store()
    store.available = False
    tracker = open_spool(store, tmp_path)
    start(tracker)
    tracker.log_rows("t0", [row(1, loss=1.0)])
    tracker.close(timeout_s=0.1)
    with (tmp_path / "calls.jsonl").open("ab") as file:
        file.write(b'{"call":"log_rows","torn')  # the crash came in the middle of a line
    store.available = True
    later = open_spool(store, tmp_path)
    assert later.flush(10)
    start(later)
    later.log_rows("t0", [row(2, loss=0.5)])
    later.close()
    assert values(store, "t0", "loss") == [1.0, 0.5]


def test_a_line_that_is_broken_is_put_aside_and_holds_nothing_up(tmp_path):
    store = Store()
    store.available = False
    tracker = open_spool(store, tmp_path)
    start(tracker)
    tracker.close(timeout_s=0.1)
    with (tmp_path / "calls.jsonl").open("ab") as file:
        file.write(b'{"call":"log_rows","torn\n[1]\n')
    store.available = True
    later = open_spool(store, tmp_path)
    start(later)
    later.log_rows("t0", [row(1, loss=1.0)])
    later.close()
    assert values(store, "t0", "loss") == [1.0]
    assert (tmp_path / "refused.jsonl").read_text().count("cannot be read") == 2


def test_calls_without_room_on_the_disk_wait_in_memory_and_are_delivered_in_order(tmp_path, full_disk):
    store = Store()
    tracker = open_spool(store, full_disk.folder / "spool")
    start(tracker)
    assert tracker.flush(600)
    full_disk.fill()
    for step in range(40):
        tracker.log_rows("t0", [row(step, **{f"metric_{n}": float(step) for n in range(40)})])
    tracker.log_artifact("t0", "page.html", b"x" * 65536)
    assert not tracker.flush(0.2)
    full_disk.free()
    assert tracker.flush(600)
    tracker.close()
    assert values(store, "t0", "metric_0") == [float(step) for step in range(40)]
    assert store.runs["t0"].artifacts == {}


def test_a_sweep_is_started_before_anything_is_logged(tmp_path):
    tracker = open_spool(Store(), tmp_path)
    with pytest.raises(TrackingError, match="start_sweep comes first"):
        tracker.log_rows("t0", [row(1, loss=1.0)])
    tracker.close()


def test_a_lost_acknowledgement_doubles_nothing(tmp_path):
    store = Store()
    tracker = open_spool(store, tmp_path)
    start(tracker)
    tracker.log_rows("t0", [row(1, loss=1.0), row(2, loss=0.5)])
    tracker.close()
    (tmp_path / "acked").unlink()
    calls = store.calls
    again = open_spool(store, tmp_path)
    assert again.flush(10)
    again.close()
    assert store.calls > calls
    assert store.runs["t0"].metrics["loss"] == {1: (1.0, 1000), 2: (0.5, 2000)}


def test_a_refused_call_is_put_aside_and_the_rest_goes_on(tmp_path):
    store = Store()
    tracker = open_spool(store, tmp_path)
    start(tracker)
    tracker.log_rows("nobody", [row(1, loss=1.0)])
    tracker.log_rows("t0", [row(1, loss=2.0)])
    tracker.close()
    assert values(store, "t0", "loss") == [2.0]
    assert "nobody" in (tmp_path / "refused.jsonl").read_text()


def test_one_process_at_a_time_owns_a_spool(tmp_path):
    tracker = open_spool(Store(), tmp_path)
    with pytest.raises(TrackingError, match="another process"):
        open_spool(Store(), tmp_path)
    tracker.close()
    open_spool(Store(), tmp_path).close()


def test_threads_can_share_a_tracker(tmp_path):
    store = Store()
    tracker = open_spool(store, tmp_path)
    start(tracker)

    def log(worker: int) -> None:
        for step in range(20):
            tracker.log_rows("t0", [row(step, **{f"m{worker}": 1.0})])

    threads = [threading.Thread(target=log, args=(worker,)) for worker in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    tracker.close()
    assert {key: len(steps) for key, steps in store.runs["t0"].metrics.items()} == {
        f"m{worker}": 20 for worker in range(4)
    }


@examples(15)
@given(outages=st.lists(st.booleans(), min_size=1, max_size=12))
def test_any_pattern_of_outages_and_restarts_gives_the_same_history(outages, tmp_path_factory):
    store, folder = Store(), tmp_path_factory.mktemp("spool")
    tracker = open_spool(store, folder)
    start(tracker)
    for step, outage in enumerate(outages):
        store.available = not outage
        tracker.log_rows("t0", [row(step, loss=float(step))])
        if step % 3 == 2:
            tracker.close(timeout_s=0.01)
            tracker = open_spool(store, folder)
            start(tracker)
    store.available = True
    assert tracker.flush(20)
    tracker.close()
    assert store.runs["t0"].metrics["loss"] == {
        step: (float(step), step * 1000) for step in range(len(outages))
    }
