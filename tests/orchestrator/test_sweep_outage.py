"""The tracking server is killed in the middle of a sweep and started again: nothing is missing and nothing twice."""

from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from mlflow_server import Server
from tiny_sweeps import Remembering, tiny_config

from orchestrator.protocol.events import Event
from orchestrator.sweep.core.record import SweepRecord
from orchestrator.sweep.run.driver import SweepRequest, SweepStart, run_sweep
from orchestrator.tracking import Tracker, find_location, open_tracker
from orchestrator.tracking.client import open_client

pytestmark = [pytest.mark.ray, pytest.mark.slow]


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    server = Server(tmp_path)
    server.start()
    yield server
    server.kill()


class Outage:
    """Kills the server at the first trial's second report and starts it again when the second trial has ended."""

    def __init__(self, server: Server) -> None:
        self.server = server
        self.trackers: list[Tracker] = []
        self.pending: list[int] = []

    def started(self, start: SweepStart) -> None:
        self.trackers.append(start.tracker)

    def on_event(self, event: Event, record: SweepRecord) -> None:
        trial = record.trials.get(getattr(event, "trial_id", ""))
        place = (event.kind, trial.index if trial else None, getattr(event, "images", None))
        if place == ("report", 0, 160):
            assert self.trackers[0].flush(600)  # so that the server has a part of the sweep
            self.server.kill()
        if place[:2] == ("trial_ended", 1):
            self.pending.append(self.trackers[0].links().pending)
            self.server.start()


def test_an_outage_in_mid_sweep_loses_nothing_and_doubles_nothing(tmp_path: Path, server: Server) -> None:
    config = tiny_config(
        tmp_path,
        tracking__uri=server.uri,
        sweep__space={"masks.num_target_blocks": {"choices": [1, 2, 3]}},
        sweep__max_concurrent_trials=1,
    )
    outage = Outage(server)
    record = run_sweep(
        SweepRequest(
            config=config,
            observer=Remembering(outage.on_event),
            sweep_id="s",
            num_cpus=1,
            on_started=outage.started,
        )
    )
    assert outage.pending[0] > 10  # the second trial's run, its points and its end, and more
    later = open_tracker(config.tracking, str(tmp_path / "runs"), "tiny", tmp_path / "runs/.spool/s")
    later.start_sweep("s", "s", {}, {})
    assert later.flush(600)  # what the sweep's own end had no time for
    experiment = later.links().experiment_id
    later.close()
    client = open_client(find_location(config.tracking, "runs"))
    runs = {run.data.tags.get("orchestrator.trial_id"): run for run in client.search_runs([experiment])}
    assert set(runs) == {None, *record.trials}
    for trial_id, trial in record.trials.items():
        assert runs[trial_id].info.status == "FINISHED"
        _check_points(client, runs[trial_id].info.run_id, trial.history)


def _check_points(client: Any, run_id: str, history: Mapping[int, Mapping[str, float]]) -> None:
    """Every metric of every row is there once, under its images and with its value."""
    told = Counter(name for metrics in history.values() for name in metrics)
    for name, count in told.items():
        points = client.get_metric_history(run_id, name)
        assert len(points) == count, name
        assert {point.step: point.value for point in points} == pytest.approx(
            {images: metrics[name] for images, metrics in history.items() if name in metrics}, nan_ok=True
        )
