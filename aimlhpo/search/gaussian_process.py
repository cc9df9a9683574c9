"""A Gaussian process that suggests the parameters of the next trial by their expected improvement.

The ingredients are the usual ones (Snoek et al. 2012): a Matern 5/2 kernel with a length scale for each parameter, the
length scales those that are most probable under a log-normal prior, whose mean grows with the root of the number of
parameters (Hvarfner et al. 2024), and noise. Losses have a long tail of bad values, so the process models normal scores
of their ranks (Salinas et al. 2020). Trials that run are taken to end as predicted ("kriging believer", Ginsbourger et
al. 2010), so that many workers, and trials sampled ahead, do not ask for the same place.

Everything is computed in the unit cube: a number lies there by its place in its range, on a logarithmic scale where its
distribution has one; categorical values are alike or not, at a distance of 1.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from scipy.linalg import cho_solve, solve_triangular
from scipy.optimize import minimize
from scipy.special import ndtr, ndtri

Array = np.ndarray[Any, Any]

_ROOT5 = math.sqrt(5)
_AT_RANDOM = 400  # candidates
_AROUND = 5  # of the best trials
_NEAR = 50  # candidates around each, once far and once near
_REFINED = 3  # of the best candidates, at each step of the refinement


def suggest(
    space: Mapping[str, BaseDistribution],
    finished: Sequence[Mapping[str, Any]],
    losses: Array,
    running: Sequence[Mapping[str, Any]],
    random: np.random.RandomState,
) -> dict[str, Any]:
    """The values of the parameters that promise most.

    Args:
        space: the parameters, with more than one value each.
        finished: the values of at least two trials.
        losses: how they ended, the lower the better.
        running: the values of trials that have not ended.
        random: what candidates are drawn with.
    """
    cube = _Cube(list(space.values()))
    done = cube.rows([[values[name] for name in space] for values in finished])
    scores = _normal_scores(losses)
    process = _Process(cube.categorical, done, scores)
    expected = process.mean(done)
    best = float(expected.min())
    taken = done
    if running:
        pending = cube.rows([[values[name] for name in space] for values in running])
        taken = np.vstack([done, pending])
        process.condition(taken, np.concatenate([scores, process.mean(pending)]))
    candidates = [cube.sample(_AT_RANDOM, random)]
    for row in done[np.argsort(expected, kind="stable")[:_AROUND]]:
        candidates += [cube.near(row, _NEAR, spread, random) for spread in (0.2, 0.05)]
    rows = np.vstack(candidates)
    promise = process.log_improvement(rows, best)
    for spread in (0.1, 0.03, 0.01):
        top = rows[np.argsort(-promise, kind="stable")[:_REFINED]]
        closer = np.vstack([cube.near(row, _NEAR, spread, random) for row in top])
        rows, promise = np.vstack([rows, closer]), np.append(promise, process.log_improvement(closer, best))
    known = {row.tobytes() for row in np.round(taken, 9)}
    order = np.argsort(-promise, kind="stable")
    new = (place for place in order if np.round(rows[place], 9).tobytes() not in known)
    return dict(zip(space, cube.values(rows[next(new, order[0])]), strict=True))


def _normal_scores(losses: Array) -> Array:
    """What a normal distribution has at the ranks of losses; equal ones share the mean of theirs."""
    _, place, counts = np.unique(losses, return_inverse=True, return_counts=True)
    ranks = np.cumsum(counts) - (counts - 1) / 2
    scores: Array = ndtri((ranks[place] - 0.5) / len(losses))
    return scores


class _Cube:
    """The search space as the unit cube, a parameter in each column."""

    def __init__(self, distributions: Sequence[BaseDistribution]) -> None:
        self._axes = [_axis(distribution) for distribution in distributions]
        self.categorical = np.array([axis.choices is not None for axis in self._axes])

    def rows(self, configurations: Sequence[Sequence[Any]]) -> Array:
        """Where configurations lie."""
        columns = zip(*configurations, strict=True)
        return np.column_stack([axis.places(column) for axis, column in zip(self._axes, columns, strict=True)])

    def values(self, row: Array) -> list[Any]:
        """The configuration at a row that `sample` or `near` has made."""
        return [axis.value(float(place)) for axis, place in zip(self._axes, row, strict=True)]

    def sample(self, count: int, random: np.random.RandomState) -> Array:
        """Configurations at random, each value of a parameter as likely as the others."""
        return np.column_stack([axis.spread_out(random.random_sample(count)) for axis in self._axes])

    def near(self, row: Array, count: int, spread: float, random: np.random.RandomState) -> Array:
        """Configurations that differ from one in a third of the parameters, numbers by about `spread` or one step."""
        width = len(row)
        changed = random.random_sample((count, width)) < max(1.5 / width, 0.3)
        changed[np.arange(count), random.randint(width, size=count)] = True
        moved = np.repeat(row[None], count, axis=0)
        for column, axis in enumerate(self._axes):
            step = random.normal(0, spread, count)
            if axis.choices is not None:
                new = axis.spread_out(random.random_sample(count))
            else:
                step = np.where(np.abs(step) < axis.gap, np.sign(step) * axis.gap, step)
                new = axis.nearest(np.clip(moved[:, column] + step, 0, 1))
            moved[:, column] = np.where(changed[:, column], new, moved[:, column])
        return moved


@dataclass(frozen=True)
class _Axis:
    """A parameter on the interval from 0 to 1.

    Attributes:
        range: its smallest and largest value; of a categorical parameter, whose choices have numbers, the index.
        log: whether places are on a logarithmic scale.
        step: between its values; None for real numbers.
        choices: those of a categorical parameter.
    """

    range: tuple[float, float]
    log: bool = False
    step: float | None = None
    is_whole: bool = False
    choices: tuple[Any, ...] | None = None

    @property
    def low(self) -> float:
        return math.log(self.range[0]) if self.log else self.range[0]

    @property
    def high(self) -> float:
        return math.log(self.range[1]) if self.log else self.range[1]

    @property
    def gap(self) -> float:
        """Between neighbours, where they are evenly spaced; otherwise 0."""
        return 0.0 if self.step is None or self.log else self.step / (self.high - self.low)

    def places(self, values: Sequence[Any]) -> Array:
        if self.choices is not None:
            known = {(type(choice), choice): index for index, choice in enumerate(self.choices)}
            numbers = np.array([known[type(value), value] for value in values], float)
        else:
            numbers = np.array(values, float)
        numbers = np.log(numbers) if self.log else numbers
        return np.clip((numbers - self.low) / (self.high - self.low), 0, 1)

    def value(self, place: float) -> Any:
        number = self.low + place * (self.high - self.low)
        if self.choices is not None:
            return self.choices[round(number)]
        number = min(max(math.exp(number) if self.log else number, self.range[0]), self.range[1])
        return round(number) if self.is_whole else number

    def nearest(self, places: Array) -> Array:
        """The places of the values nearest to them."""
        if self.step is None:
            return places
        if self.log:  # whole numbers, as only they have both a step and a logarithmic scale
            whole = np.round(np.exp(self.low + places * (self.high - self.low)))
            return np.clip((np.log(whole) - self.low) / (self.high - self.low), 0, 1)
        return np.round(places / self.gap) * self.gap

    def spread_out(self, uniform: Array) -> Array:
        """Numbers between 0 and 1 as places, as many of them near each value."""
        if self.gap:
            count = round(1 / self.gap) + 1
            places: Array = np.minimum(np.floor(uniform * count), count - 1) * self.gap
            return places
        return self.nearest(uniform)


def _axis(distribution: BaseDistribution) -> _Axis:
    if isinstance(distribution, CategoricalDistribution):
        return _Axis((0, len(distribution.choices) - 1), step=1, choices=distribution.choices)
    if not isinstance(distribution, FloatDistribution | IntDistribution):
        raise TypeError(f"a parameter with {distribution}")
    ends = float(distribution.low), float(distribution.high)
    return _Axis(ends, distribution.log, distribution.step, isinstance(distribution, IntDistribution))


class _Process:
    """A Gaussian process with zero mean, fitted to rows of the cube and their scores.

    Its parameters are logarithms: the length scale of each column, the variance of the function, that of the noise.
    """

    _NOISE = math.log(0.05), 1.5  # the prior's mean and deviation
    _JITTER = 1e-6
    _ITERATIONS = 20

    def __init__(self, categorical: Array, rows: Array, scores: Array) -> None:
        width = rows.shape[1]
        self._categorical, self._width = categorical, width
        self._mean = np.append(np.full(width, 0.5 * math.log(width)), [0.0, self._NOISE[0]])
        self._deviation = np.append(np.ones(width + 1), self._NOISE[1])
        squares = self._squares(rows, rows)
        bounds = [*([(-4.0, 5.0)] * width), (-4.0, 4.0), (math.log(1e-4), math.log(2.0))]
        fitted = minimize(
            self._loss,
            self._mean,
            (squares, scores),
            method="L-BFGS-B",
            jac=True,
            bounds=bounds,
            options={"maxiter": self._ITERATIONS},
        )
        self._theta = fitted.x
        self.condition(rows, scores)

    def condition(self, rows: Array, scores: Array) -> None:
        """Take these rows for what is known; the parameters stay."""
        self._rows = rows
        covariance, _ = self._kernel(self._squares(rows, rows), self._theta)
        self._lower = np.linalg.cholesky(covariance + self._noise(self._theta) * np.eye(len(rows)))
        self._weights = cho_solve((self._lower, True), scores, check_finite=False)

    def mean(self, rows: Array) -> Array:
        """What is expected at rows."""
        covariance, _ = self._kernel(self._squares(rows, self._rows), self._theta)
        expected: Array = covariance @ self._weights
        return expected

    def log_improvement(self, rows: Array, best: float) -> Array:
        """The logarithm of the improvement on `best` that is expected at rows."""
        covariance, _ = self._kernel(self._squares(rows, self._rows), self._theta)
        explained = solve_triangular(self._lower, covariance.T, lower=True, check_finite=False)
        variance = np.maximum(math.exp(self._theta[-2]) - (explained**2).sum(axis=0), 1e-12)
        deviation = np.sqrt(variance)
        z = (best - covariance @ self._weights) / deviation
        density = np.exp(-0.5 * z**2) / math.sqrt(2 * math.pi)
        near = np.log(np.maximum(density + z * ndtr(z), 1e-300))
        far = -0.5 * z**2 - 0.5 * math.log(2 * math.pi) - 2 * np.log(np.maximum(-z, 1.0))  # its limit
        improvement: Array = np.where(z > -5, near, far) + np.log(deviation)
        return improvement

    def _noise(self, theta: Array) -> float:
        return math.exp(theta[-1]) + self._JITTER

    def _squares(self, rows: Array, others: Array) -> Array:
        """The squares of differences: rows by others by columns."""
        difference = rows[:, None, :] - others[None, :, :]
        different: Array = difference[:, :, self._categorical] != 0
        squares: Array = difference**2
        squares[:, :, self._categorical] = different
        return squares

    def _kernel(self, squares: Array, theta: Array) -> tuple[Array, Array]:
        """The covariances, and the factor of the derivative that all length scales share."""
        square = squares @ np.exp(-2 * theta[: self._width])
        distance = _ROOT5 * np.sqrt(square)
        fading = math.exp(theta[-2]) * np.exp(-distance)
        return fading * (1 + distance + 5 / 3 * square), 5 / 3 * fading * (1 + distance)

    def _loss(self, theta: Array, squares: Array, scores: Array) -> tuple[float, Array]:
        """The negative logarithm of the posterior density of the parameters, but for a constant, and its gradient."""
        covariance, shared = self._kernel(squares, theta)
        lower = np.linalg.cholesky(covariance + self._noise(theta) * np.eye(len(scores)))
        half = solve_triangular(lower, np.eye(len(scores)), lower=True, check_finite=False)
        inverse = half.T @ half
        weights = inverse @ scores
        slope = inverse - np.outer(weights, weights)
        gradient = np.empty_like(theta)
        by_length = np.tensordot(shared * slope, squares, axes=2)
        gradient[: self._width] = 0.5 * by_length * np.exp(-2 * theta[: self._width])
        gradient[-2] = 0.5 * (slope * covariance).sum()
        gradient[-1] = 0.5 * np.trace(slope) * math.exp(theta[-1])
        z = (theta - self._mean) / self._deviation
        loss = 0.5 * scores @ weights + np.log(np.diag(lower)).sum() + 0.5 * z @ z
        return float(loss), gradient + z / self._deviation
