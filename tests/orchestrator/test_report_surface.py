"""The surface against synthetic truths with a known optimum: is it found, and do intervals hold what they claim?"""

import math

import numpy as np
import pytest

from orchestrator.report.statistics.findings import rank_axes
from orchestrator.report.statistics.noise import pool_noise
from orchestrator.report.statistics.realised import SurfaceAxis
from orchestrator.report.statistics.surface import fit_surface

GRID = np.array([(x, y) for x in np.linspace(0, 1, 5) for y in np.linspace(0, 1, 4)])
OPTIMUM = np.array([0.5, 1 / 3])
NUM_SEEDS, NUM_SWEEPS = 3, 20


def bowl(points):
    apart = points - OPTIMUM
    return 60 - 18 * apart[:, 0] ** 2 - 12 * apart[:, 1] ** 2 + 6 * apart[:, 0] * apart[:, 1]


def peak(points):
    return 50 + 8 * np.exp(-9 * ((points - OPTIMUM) ** 2).sum(axis=1))


def fit(truth, rng, *, sd=1.0):
    values = np.repeat(truth(GRID), NUM_SEEDS) + sd * rng.standard_normal(NUM_SEEDS * len(GRID))
    noise = pool_noise(values.reshape(-1, NUM_SEEDS).tolist())
    return fit_surface(
        np.repeat(GRID, NUM_SEEDS, axis=0), values, noise_sd=noise.seed_sd, freedom=noise.freedom
    )


@pytest.fixture(scope="module")
def sweeps():
    """Twenty noisy sweeps of each truth."""
    return [
        (truth, fit(truth, np.random.default_rng(seed)))
        for truth in (bowl, peak)
        for seed in range(NUM_SWEEPS)
    ]


@pytest.mark.parametrize("truth", [bowl, peak])
def test_the_optimum_cell_is_found_in_at_least_18_of_20_sweeps(sweeps, truth):
    best = int(truth(GRID).argmax())
    found = [int(s.mean_and_sd(GRID)[0].argmax()) == best for t, s in sweeps if t is truth]
    assert len(found) == NUM_SWEEPS
    assert sum(found) >= 18


def test_90_percent_intervals_cover_between_85_and_95_percent_of_the_truth(sweeps):
    rng, covered = np.random.default_rng(99), []
    for truth, surface in sweeps:
        queries = rng.random((200, 2))
        low, high = surface.interval(queries)
        covered.append(((low <= truth(queries)) & (truth(queries) <= high)).mean())
    assert 0.85 <= np.mean(covered) <= 0.95


def test_the_surface_is_a_function_of_its_input():
    first, again = (fit(bowl, np.random.default_rng(3)) for _ in range(2))
    assert np.array_equal(first.mean_and_sd(GRID)[0], again.mean_and_sd(GRID)[0])


def test_joint_answers_agree_with_single_ones():
    surface = fit(bowl, np.random.default_rng(4))
    mean, covariance = surface.joint(GRID[:7])
    single_mean, single_sd = surface.mean_and_sd(GRID[:7])
    assert np.allclose(mean, single_mean)
    assert np.allclose(np.sqrt(np.diag(covariance)), single_sd)


def test_noise_that_was_assumed_too_small_is_corrected_by_the_data():
    rng = np.random.default_rng(5)
    points = rng.random((80, 2))
    surface = fit_surface(
        points, bowl(points) + 3.0 * rng.standard_normal(80), noise_sd=1.0, freedom=math.inf
    )
    assert surface.noise_sd > 1.6


def test_an_axis_that_matters_is_told_from_one_that_does_not():
    axes = (SurfaceAxis(name="matters"), SurfaceAxis(name="idle"))
    surface = fit(lambda points: 50 - 20 * (points[:, 0] - 0.5) ** 2, np.random.default_rng(6))
    first, second = rank_axes(surface, axes, GRID)
    assert (first.name, first.matters, second.matters) == ("matters", True, False)
    assert first.interval.low <= 5.0 <= first.interval.high  # from 50 in the middle to 45 at both ends
    assert first.better_at == pytest.approx(0.5)
    assert first.share > 0.9


def test_a_flat_surface_has_no_axis_that_matters():
    axes = (SurfaceAxis(name="a"), SurfaceAxis(name="b"))
    found = [
        any(
            axis.matters
            for axis in rank_axes(fit(lambda p: 50 + 0 * p[:, 0], np.random.default_rng(s)), axes, GRID)
        )
        for s in range(8)
    ]
    assert sum(found) <= 2


def test_two_trials_make_no_surface():
    with pytest.raises(ValueError, match="at least three"):
        fit_surface(GRID[:2], [1.0, 2.0], noise_sd=1.0, freedom=4)
