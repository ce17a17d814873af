"""Points of a grid and values of axes."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.config import axis_value, grid_points, grid_size, pair_around
from orchestrator.config.models import (
    Centered,
    CenteredRatio,
    Choice,
    IntUniform,
    LogUniform,
    SweepConfig,
    Uniform,
)
from orchestrator.protocol.point import Point

FRACTIONS = st.floats(0, 1)


def test_a_grid_is_every_combination_with_the_last_axis_fastest():
    space = {
        "masks.num_target_blocks": Choice(choices=(1, 4)),
        "train.batch_size": Choice(choices=(8, 16, 32)),
    }
    points = grid_points(SweepConfig(space=space))
    assert len(points) == grid_size(SweepConfig(space=space)) == 6
    assert points[0] == Point({"masks.num_target_blocks": 1, "train.batch_size": 8})
    assert points[1] == Point({"masks.num_target_blocks": 1, "train.batch_size": 16})


def test_num_trials_caps_a_grid_without_making_it():
    space = {f"a.{index}": Choice(choices=tuple(range(100))) for index in range(10)}
    assert len(grid_points(SweepConfig(space=space, num_trials=3))) == 3


def test_an_empty_space_is_the_base_alone():
    assert grid_points(SweepConfig()) == [Point({})]


def test_a_range_has_no_grid():
    with pytest.raises(ValueError, match="is a range"):
        grid_points(SweepConfig(space={"x": Uniform(uniform=(0, 1))}))


@given(FRACTIONS, FRACTIONS)
def test_numbers_stay_in_their_bounds_and_grow_with_the_fraction(first, second):
    low, high = sorted((first, second))
    for axis in (
        Uniform(uniform=(0.1, 0.3)),
        LogUniform(log_uniform=(1e-4, 1e-1)),
        IntUniform(int_uniform=(1, 6)),
    ):
        (bounds,) = axis.model_dump().values()
        assert bounds[0] <= axis_value(axis, low) <= axis_value(axis, high) <= bounds[1]


def test_evenly_spaced_fractions_take_integers_and_choices_equally_often():
    fractions = [(index + 0.5) / 60 for index in range(60)]
    drawn = [axis_value(IntUniform(int_uniform=(1, 6)), fraction) for fraction in fractions]
    chosen = [axis_value(Choice(choices=("a", "b", "c")), fraction) for fraction in fractions]
    assert [drawn.count(value) for value in range(1, 7)] == [10] * 6
    assert [chosen.count(value) for value in "abc"] == [20] * 3


def test_the_middle_of_a_logarithmic_range_is_its_geometric_mean():
    assert axis_value(LogUniform(log_uniform=(1e-4, 1e-2)), 0.5) == pytest.approx(1e-3)


def test_pairs_lie_around_their_centre():
    assert axis_value(Centered(center=(0.1, 0.3), width=0.1), 0.5) == (0.15, 0.25)
    assert axis_value(CenteredRatio(center_ratio=(0.5, 2.0), spread=2.0), 0.5) == (0.5, 2.0)
    assert pair_around(Centered(center=(0.1, 0.3), width=0.0), 0.2) == (0.2, 0.2)


@pytest.mark.parametrize("fraction", [-0.1, 1.1, float("nan")])
def test_a_fraction_outside_the_unit_interval_is_refused(fraction):
    with pytest.raises(ValueError, match="from 0 to 1"):
        axis_value(Uniform(uniform=(0, 1)), fraction)
