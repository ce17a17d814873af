import math

import pytest

from orchestrator.protocol.intervals import Interval


@pytest.mark.parametrize(("level", "name"), [(0.95, "95 %"), (0.9, "90 %"), (0.975, "97.5 %")])
def test_an_interval_says_its_level(level: float, name: str) -> None:
    found = Interval.around(50.0, 2.0, level)
    assert found.text() == f"{name} interval 48.0 to 52.0"
    assert found.to_json() == {"low": 48.0, "high": 52.0, "level": level}


def test_an_interval_keeps_its_level_in_another_unit_and_when_it_is_cut() -> None:
    share = Interval(low=0.2, high=0.4, level=0.9)
    assert share.times(100) == Interval(low=20.0, high=40.0, level=0.9)
    assert share.within(0.3, 1.0) == Interval(low=0.3, high=0.4, level=0.9)


def test_an_interval_without_ends_is_not_known() -> None:
    assert not Interval.around(1.0, math.inf, 0.95).is_known
    assert Interval.around(1.0, 1.0, 0.95).bounds("+.1f") == "+0.0 to +2.0"
