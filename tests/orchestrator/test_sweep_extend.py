"""A finished sweep is made longer: its trials go on from their last checkpoints."""

from dataclasses import replace
from pathlib import Path

import pytest
from tiny_sweeps import InProcess, Remembering, tiny_config

from orchestrator.config import apply_overrides, dump
from orchestrator.config.models import RunConfig
from orchestrator.data import prepare_data
from orchestrator.errors import CheckpointError, ConfigError
from orchestrator.protocol.events import Reported, SweepEnded, SweepStarted
from orchestrator.protocol.jobs import Outcome, TrialJob
from orchestrator.report import load_sweep
from orchestrator.storage import open_store
from orchestrator.sweep.core.record import SweepRecord
from orchestrator.sweep.journal.resume import check_same_sweep, earlier_configs
from orchestrator.sweep.run.coordinator import Coordinator
from orchestrator.sweep.search.warm_start import take_over
from orchestrator.sweep.space.points import plan_sweep
from orchestrator.sweep.watch.follower import Follower
from orchestrator.sweep.watch.status import SweepStatus
from orchestrator.tracking import MemoryTracker
from orchestrator.train.distributed import Rank
from orchestrator.train.loop.run import Run
from orchestrator.train.reporting import ListReporter


def _config(folder: Path, images: int) -> RunConfig:
    return tiny_config(
        folder,
        train__images=images,
        sweep__space={"masks.num_target_blocks": {"choices": [1, 2]}},
        sweep__asha={"variant": "stopping", "first_rung_images": 160, "reduction_factor": 2},
    )


def _drive(config: RunConfig, folder: Path) -> Coordinator:
    """Begin a sweep, or go on with it, and run it to its end in this process."""
    coordinator = Coordinator(str(folder / "s"), config, prepare_data(config).uri)
    if coordinator.record().sweep_id:
        coordinator.go_on({})
    else:
        facts = {"name": "s", "environment": {}, "data": {"uri": "u", "digest": "d"}, "notes": ()}
        coordinator.append(SweepStarted(sweep_id="s", config=dump(config), **facts))
    coordinator.slot_opened("slot-0", 0.0, 1.0)
    for trial in plan_sweep(config).trials:
        coordinator.submit(trial.trial_id, trial.index, trial.point, trial.seed, trial.name)
    while (assignment := coordinator.next_trial("slot-0")).job is not None:
        Run(assignment.job, InProcess(coordinator, assignment.attempt_id), Rank()).train()
        coordinator.attempt_ended(assignment.job.trial_id, assignment.attempt_id, Outcome())
    coordinator.append(SweepEnded(state="finished"))
    return coordinator


def test_an_extended_sweep_is_told_under_its_newest_configuration(tmp_path: Path) -> None:
    _drive(apply_overrides(_config(tmp_path, 320), {"budget.cpu_core_hours": 1.0}), tmp_path)
    _drive(apply_overrides(_config(tmp_path, 640), {"budget.cpu_core_hours": 2.0}), tmp_path)
    status = SweepStatus(open_store(str(tmp_path / "s")))
    status.refresh()
    assert status.ledger().cap == 2.0
    config, record, _ = load_sweep(str(tmp_path), "s")
    assert config.train.images == 640
    assert [earlier.train.images for earlier in earlier_configs(record)] == [320, 640]


def test_a_status_that_is_watched_takes_a_changed_configuration_over(tmp_path: Path) -> None:
    _drive(_config(tmp_path, 320), tmp_path)
    status = SweepStatus(open_store(str(tmp_path / "s")))
    status.refresh()
    assert status.ledger().cap is None
    _drive(apply_overrides(_config(tmp_path, 320), {"budget.cpu_core_hours": 2.0}), tmp_path)
    status.refresh()
    assert status.ledger().cap == 2.0


def test_what_was_extended_says_nothing_to_a_sweep_that_is_planned_for_its_length(tmp_path: Path) -> None:
    _drive(_config(tmp_path, 320), tmp_path)
    record = _drive(_config(tmp_path, 640), tmp_path).record()
    search = {"sweep.search": "optuna", "sweep.num_trials": 2}
    for images in (320, 640):
        warm = take_over(apply_overrides(_config(tmp_path, images), search), record)
        assert warm.heard == ()
        assert any("was extended" in note for note in warm.notes)


def _states(record: SweepRecord) -> list[tuple[str, int, int]]:
    return [(trial.state, trial.images, len(trial.attempts)) for trial in record.in_order()]


def test_finished_trials_go_on_from_their_last_checkpoint_and_stopped_ones_stay(tmp_path: Path) -> None:
    short = _states(_drive(_config(tmp_path, 320), tmp_path).record())
    assert short[0] == ("finished", 320, 1)
    coordinator = _drive(_config(tmp_path, 640), tmp_path)
    trial = coordinator.record().in_order()[0]
    assert (trial.state, trial.images, trial.total_images, len(trial.attempts)) == ("finished", 640, 640, 2)
    firsts = {next(iter(trial.attempts)) for trial in coordinator.record().in_order()}
    early = [entry.event for entry in coordinator.events() if isinstance(entry.event, Reported)]
    assert {event.attempt_id for event in early if event.images < 320} == firsts
    assert coordinator.record().lengths == [320, 640]
    for before, after in zip(short[1:], _states(coordinator.record())[1:], strict=True):
        assert after == (before if before[0] == "stopped" else ("finished", 640, 2))


def test_an_extended_sweep_that_goes_on_without_change_has_nothing_to_do(tmp_path: Path) -> None:
    _drive(_config(tmp_path, 320), tmp_path)
    before = _states(_drive(_config(tmp_path, 640), tmp_path).record())
    assert _states(_drive(_config(tmp_path, 640), tmp_path).record()) == before


def test_an_extended_sweep_may_become_longer_still_but_not_shorter(tmp_path: Path) -> None:
    record = SweepRecord(sweep_id="s", config_text=dump(_config(tmp_path, 320)), lengths=[320, 960])
    check_same_sweep(_config(tmp_path, 1280), record)
    for shorter in (640, 160):
        with pytest.raises(ConfigError, match=r"train.images.*extended to 960 images") as caught:
            check_same_sweep(_config(tmp_path, shorter), record)
        assert len(caught.value.faults) == 1
    with pytest.raises(ConfigError, match=r"train\.images"):
        check_same_sweep(_config(tmp_path, 160), SweepRecord(sweep_id="s", config_text=record.config_text))


def test_a_checkpoint_of_another_length_is_refused_unless_the_trial_was_extended(tmp_path: Path) -> None:
    _drive(_config(tmp_path, 320), tmp_path)
    trial = plan_sweep(_config(tmp_path, 320)).trials[0]
    config = apply_overrides(_config(tmp_path, 640), dict(trial.point))
    uri = prepare_data(config).uri
    job = TrialJob(trial_id=trial.trial_id, config=config, shards_uri=uri, run_uri=str(tmp_path / "s"))
    with pytest.raises(CheckpointError, match="another configuration"):
        Run(job, ListReporter(), Rank()).train()
    extended = replace(job, shorter_images=(320,))
    reporter = ListReporter()
    Run(extended, reporter, Rank()).train()
    assert [report.images for report in reporter.reports] == [320, 480, 640]
    assert [report.final for report in reporter.reports] == [False, False, True]


def test_the_tracker_has_the_run_open_again_and_closed_at_its_new_end(tmp_path: Path) -> None:
    _drive(_config(tmp_path, 320), tmp_path)
    config = _config(tmp_path, 640)
    coordinator, tracker = _drive(config, tmp_path), MemoryTracker()
    tracker.start_sweep("s", "s", {}, {})
    Follower(config, tracker, Remembering()).follow(coordinator.events())
    trial = coordinator.record().in_order()[0]
    run = tracker.runs[trial.trial_id]
    assert run.tags["orchestrator.state"] == "finished"
    assert max(run.metrics["train/loss"]) == 640
