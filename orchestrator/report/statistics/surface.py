"""A response surface: a Gaussian process over a few axes, with the noise of the seeds and honest intervals.

Owns fitting and asking. Leaves out what the axes mean (`realised`) and what is read off a surface (`findings`). The
process has a Matern 5/2 kernel with one length a dimension. Its hyperparameters are not fixed at their most likely
values, which makes intervals too narrow on a few dozen trials, but drawn from their posterior: every answer is the
mixture over the draws. Each trial carries the noise of the seeds; how well that is known is part of the posterior.

Letters: N trials, D axes, Q queries, P hyperparameters.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize
from scipy.stats import norm
from sklearn.exceptions import ConvergenceWarning
from sklearn.gaussian_process import GaussianProcessRegressor
from sklearn.gaussian_process.kernels import ConstantKernel, Kernel, Matern, WhiteKernel

Array = NDArray[np.float64]

# In ranges of an axis; benchmarks/report.py measures what it does to the coverage of intervals.
_LENGTH_LOG_MEAN, _LENGTH_LOG_SD = math.log(1.5), 0.5
_AMPLITUDE_LOG_SD = 1.0
_ASSUMED_NOISE_LOG_SD = 0.7
_MEAN_VARIANCE = 4.0
_BURN_IN, _STEPS = 100, 480
_NUM_DRAWS = 24
_MANY_TRIALS = 150
_JITTER = 1e-9
LEVEL = 0.90
"""Of the intervals of a surface."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Surface:
    """A fitted surface; queries are in the units of the axes, answers in those of the values."""

    low_D: Array
    high_D: Array
    offset: float
    scale: float
    models: tuple[GaussianProcessRegressor, ...]
    noise_sd: float
    """Noise of one trial as the data and the seeds together have it."""
    amplitude_sd: float
    """How much the surface itself varies."""
    lengths_D: Array
    """Typical length of each axis, in units of its range: long where the axis hardly matters."""

    def mean_and_sd(self, queries_QD: Array) -> tuple[Array, Array]:
        """Mean and standard deviation of the surface (without a trial's noise) at each query."""
        answers = [model.predict(self._unit(queries_QD), return_std=True) for model in self.models]
        means, sds = np.array([mean for mean, _ in answers]), np.array([sd for _, sd in answers])
        total_Q = np.sqrt((sds**2).mean(axis=0) + means.var(axis=0))
        return self.offset + self.scale * means.mean(axis=0), self.scale * total_Q

    def joint(self, queries_QD: Array) -> tuple[Array, Array]:
        """Mean [Q] and covariance [Q, Q] of the surface at all queries together."""
        answers = [model.predict(self._unit(queries_QD), return_cov=True) for model in self.models]
        means = np.array([mean for mean, _ in answers])
        covariance = np.mean([cov for _, cov in answers], axis=0) + np.cov(means, rowvar=False, ddof=0)
        return self.offset + self.scale * means.mean(axis=0), self.scale**2 * np.atleast_2d(covariance)

    def interval(self, queries_QD: Array, level: float = LEVEL) -> tuple[Array, Array]:
        """Lower and upper bound of the surface at each query: quantiles of the mixture."""
        answers = [model.predict(self._unit(queries_QD), return_std=True) for model in self.models]
        means_KQ, sds_KQ = np.array([mean for mean, _ in answers]), np.array([sd for _, sd in answers])
        low, high = (
            _mixture_quantile(means_KQ, sds_KQ, share) for share in (0.5 - level / 2, 0.5 + level / 2)
        )
        return self.offset + self.scale * low, self.offset + self.scale * high

    def _unit(self, queries_QD: Array) -> Array:
        span = np.where(self.high_D > self.low_D, self.high_D - self.low_D, 1.0)
        unit: Array = (np.atleast_2d(queries_QD) - self.low_D) / span
        return unit


@dataclass(frozen=True, kw_only=True, eq=False)
class _Problem:
    """Standardised data and the prior of the logarithms of the hyperparameters."""

    unit_ND: Array
    values_N: Array
    prior_mean_P: Array
    prior_sd_P: Array
    process: GaussianProcessRegressor

    def log_posterior(self, theta_P: Array) -> float:
        likelihood = float(self.process.log_marginal_likelihood(theta_P, clone_kernel=False))
        return likelihood - 0.5 * float((((theta_P - self.prior_mean_P) / self.prior_sd_P) ** 2).sum())

    def negative_with_gradient(self, theta_P: Array) -> tuple[float, Array]:
        value, gradient = self.process.log_marginal_likelihood(
            theta_P, eval_gradient=True, clone_kernel=False
        )
        distance = (theta_P - self.prior_mean_P) / self.prior_sd_P
        return -float(value) + 0.5 * float((distance**2).sum()), -gradient + distance / self.prior_sd_P


def fit_surface(
    points_ND: Array, values_N: Sequence[float] | Array, *, noise_sd: float, freedom: float, seed: int = 0
) -> Surface:
    """Fit a surface to trials.

    `noise_sd` is the spread of a trial's value over seeds, `freedom` the degrees of freedom it was measured with; an
    infinite one marks an assumption, which the data may then correct. Same input and seed, same surface.

    Raises:
        ValueError: There are fewer than three trials.
    """
    points, values = np.asarray(points_ND, dtype=np.float64), np.asarray(values_N, dtype=np.float64)
    if len(values) < 3:
        raise ValueError(f"a surface needs at least three trials, not {len(values)}")
    low, high = points.min(axis=0), points.max(axis=0)
    unit = (points - low) / np.where(high > low, high - low, 1.0)
    offset, scale = float(values.mean()), max(float(values.std()), noise_sd, 1e-6)
    problem = _problem(unit, (values - offset) / scale, noise_sd / scale, freedom)
    draws = _draw(problem, np.random.default_rng(seed))
    return Surface(
        low_D=low,
        high_D=high,
        offset=offset,
        scale=scale,
        models=tuple(_condition(problem, theta) for theta in draws),
        noise_sd=scale * float(np.exp(0.5 * draws[:, -1]).mean()),
        amplitude_sd=scale * float(np.exp(0.5 * draws[:, 0]).mean()),
        lengths_D=np.exp(np.median(draws[:, 1:-1], axis=0)),
    )


def _mixture_quantile(means_KQ: Array, sds_KQ: Array, share: float) -> Array:
    """Where the mixture of normal distributions has this share below it, by bisection."""
    sds_KQ = np.maximum(sds_KQ, 1e-12)
    low_Q, high_Q = (means_KQ - 8 * sds_KQ).min(axis=0), (means_KQ + 8 * sds_KQ).max(axis=0)
    for _ in range(40):
        middle_Q = (low_Q + high_Q) / 2
        below_Q = norm.cdf((middle_Q - means_KQ) / sds_KQ).mean(axis=0) < share
        low_Q, high_Q = np.where(below_Q, middle_Q, low_Q), np.where(below_Q, high_Q, middle_Q)
    quantile: Array = (low_Q + high_Q) / 2
    return quantile


def _problem(unit_ND: Array, values_N: Array, noise: float, freedom: float) -> _Problem:
    num_axes = unit_ND.shape[1]
    noise_log_sd = _ASSUMED_NOISE_LOG_SD if math.isinf(freedom) else math.sqrt(2 / max(1.0, freedom))
    mean = [0.0, *[_LENGTH_LOG_MEAN] * num_axes, 2 * math.log(max(noise, 1e-4))]
    sd = [_AMPLITUDE_LOG_SD, *[_LENGTH_LOG_SD] * num_axes, noise_log_sd]
    process = GaussianProcessRegressor(_kernel(num_axes, noise=True), alpha=_JITTER, optimizer=None)
    process.fit(unit_ND, values_N)
    return _Problem(
        unit_ND=unit_ND,
        values_N=values_N,
        prior_mean_P=np.array(mean),
        prior_sd_P=np.array(sd),
        process=process,
    )


def _kernel(num_axes: int, *, noise: bool) -> Kernel:
    """An unknown mean, the surface, and the noise of a trial; bounds do not bind, the prior does."""
    free = (1e-12, 1e12)
    surface = ConstantKernel(1.0, free) * Matern(np.ones(num_axes), free, nu=2.5)
    kernel = ConstantKernel(_MEAN_VARIANCE, "fixed") + surface
    return kernel + WhiteKernel(1.0, free) if noise else kernel


def _draw(problem: _Problem, rng: np.random.Generator) -> Array:
    """Draws [draws, P] from the posterior of the log hyperparameters: random-walk Metropolis from the mode."""
    num_hyper = len(problem.prior_mean_P)
    bounds = list(
        zip(
            problem.prior_mean_P - 4 * problem.prior_sd_P,
            problem.prior_mean_P + 4 * problem.prior_sd_P,
            strict=True,
        )
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        mode = minimize(
            problem.negative_with_gradient,
            problem.prior_mean_P,
            jac=True,
            bounds=bounds,
            method="L-BFGS-B",
            options={"maxiter": 60},
        ).x
    steps = _STEPS if len(problem.values_N) <= _MANY_TRIALS else _STEPS // 4
    step_P = 1.2 / math.sqrt(num_hyper) * problem.prior_sd_P
    theta, height = mode, problem.log_posterior(mode)
    kept = []
    for number in range(_BURN_IN + steps):
        proposal = theta + step_P * rng.standard_normal(num_hyper)
        proposed = problem.log_posterior(proposal)
        if math.log(max(rng.random(), 1e-300)) < proposed - height:
            theta, height = proposal, proposed
        if number >= _BURN_IN and (number - _BURN_IN) % (steps // _NUM_DRAWS) == 0:
            kept.append(theta)
    return np.array(kept)


def _condition(problem: _Problem, theta_P: Array) -> GaussianProcessRegressor:
    """The surface under one draw, with the trials' noise on the data and not on the answers."""
    kernel = _kernel(problem.unit_ND.shape[1], noise=False)
    kernel.theta = theta_P[:-1]
    process = GaussianProcessRegressor(kernel, alpha=float(np.exp(theta_P[-1])) + _JITTER, optimizer=None)
    return process.fit(problem.unit_ND, problem.values_N)
