"""The plan of a run: stops, rungs and rounding."""

from hypothesis import given
from hypothesis import strategies as st

from orchestrator.config.models import ProbeConfig, RunConfig, TrainConfig
from orchestrator.train.loop.plan import plan_run


def _config(
    images: int, batch: int, *, report: int = 10**9, save: int = 10**9, probe: int | None = None
) -> RunConfig:
    return RunConfig(
        train=TrainConfig(
            images=images, batch_size=batch, report_every_images=report, checkpoint_every_images=save
        ),
        probe=ProbeConfig(every_images=probe),
    )


def test_the_last_stop_probes_checkpoints_and_is_final() -> None:
    plan = plan_run(_config(1000, 32))
    assert plan.total_steps == 31
    assert [stop.step for stop in plan.stops] == [31]
    assert plan.stops[-1].probe
    assert plan.stops[-1].checkpoint
    assert plan.stops[-1].final


def test_cadences_round_up_to_whole_steps() -> None:
    plan = plan_run(_config(320, 32, report=100, save=150, probe=200))
    table = {stop.step: (stop.checkpoint, stop.probe) for stop in plan.stops}
    assert table == {
        4: (False, False),
        5: (True, False),
        7: (False, True),
        8: (False, False),
        10: (True, True),
    }


def test_a_rung_probes_and_checkpoints_and_keeps_its_name_in_images() -> None:
    plan = plan_run(_config(3200, 32), rungs_images=(500, 1000))
    assert [(stop.step, stop.rung) for stop in plan.stops] == [(16, 500), (32, 1000), (100, None)]
    assert all(stop.probe and stop.checkpoint for stop in plan.stops)


def test_a_rung_at_the_end_is_the_end() -> None:
    plan = plan_run(_config(320, 32), rungs_images=(320,))
    assert [(stop.step, stop.rung, stop.final) for stop in plan.stops] == [(10, None, True)]


@given(
    images=st.integers(1, 5000),
    batch=st.integers(1, 64),
    report=st.integers(1, 6000),
    save=st.integers(1, 6000),
    rung=st.integers(1, 6000),
    done=st.integers(0, 200),
)
def test_every_plan_ends_once_and_only_what_is_ahead_is_left(
    images: int, batch: int, report: int, save: int, rung: int, done: int
) -> None:
    plan = plan_run(_config(images, batch, report=report, save=save), rungs_images=(rung,))
    steps = [stop.step for stop in plan.stops]
    assert steps == sorted(set(steps))
    assert steps[-1] == plan.total_steps
    assert [stop.final for stop in plan.stops].count(True) == 1
    assert all(step > done for step in plan.stops_after(done))
