import pytest

from orchestrator.protocol.hours import ShareHours, WholeHours


def test_hours_are_counted_on_gpus_where_any_was_held() -> None:
    assert (WholeHours(gpu=2.0, cpu_core=8.0).counted, WholeHours(cpu_core=8.0).counted) == (2.0, 8.0)


def test_a_share_is_the_whole_without_the_start() -> None:
    whole = WholeHours(gpu=2.0, cpu_core=8.0)
    assert whole.share_after(0.5) == ShareHours(gpu=1.5, cpu_core=6.0)
    assert WholeHours().share_after(0.0) == ShareHours()


def test_wholes_are_added_and_shares_are_averaged() -> None:
    assert WholeHours.total([WholeHours(gpu=1.0), WholeHours(gpu=2.0, cpu_core=3.0)]).to_json() == {
        "gpu_hours": 3.0,
        "cpu_core_hours": 3.0,
    }
    assert ShareHours.mean([ShareHours(cpu_core=1.0), ShareHours(cpu_core=2.0)]).counted == pytest.approx(1.5)


def test_a_whole_is_no_share() -> None:
    assert WholeHours(gpu=1.0) != ShareHours(gpu=1.0)
