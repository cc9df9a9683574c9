"""A Gaussian process that suggests the parameters of the next trial by their expected improvement.

The ingredients are the usual ones (Snoek et al. 2012): a Matern 5/2 kernel with a length scale for each parameter, the
length scales those that are most probable under a wide log-normal prior, whose mean grows with the root of the number
of parameters (Hvarfner et al. 2024), and noise. Losses have a long tail of bad values, so those worse than the median
are brought nearer to it. Trials that run are taken to end as predicted ("kriging believer", Ginsbourger et al. 2010),
so that many workers, and trials sampled ahead, do not ask for the same place.

What trials report at rungs is modelled, too, by one process for each rung and one for the end, the recursive form of
multi-fidelity models (Kennedy and O'Hagan 2000; Le Gratiet and Garnier 2014): each has as its mean a line through the
values of the rung below, and says how much the parameters move a trial from that line. So a trial that was stopped
says something about the end, too, and configurations that begin slowly are known as such.

Everything is computed in the unit cube: a number lies there by its place in its range, on a logarithmic scale where its
distribution has one; categorical values are alike or not, at a distance of 1.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from scipy.linalg import cho_solve, solve_triangular
from scipy.optimize import minimize
from scipy.special import ndtr

Array = np.ndarray[Any, Any]

_ROOT5 = math.sqrt(5)
_AT_RANDOM = 400  # candidates
_AROUND = 5  # of the best trials
_NEAR = 50  # candidates around each, once far and once near
_REFINED = 3  # of the best candidates, at each step of the refinement
_MOST_MODELLED = 80  # trials in a process: the time that it takes grows with their third power
_GROWTH = 1.3  # how many times as many results there are when a process is fitted anew
_REMEMBERED = 100  # fitted processes


class ProcessModel:
    """Models trials, suggests others, and remembers the parameters of its processes for as long as they hold.

    They are fitted anew when the number of results has grown by about a third. What is suggested depends on what is
    known and on `random`, never on what was suggested before.
    """

    def __init__(self) -> None:
        self._fitted: dict[bytes, Array] = {}

    def suggest(
        self,
        space: Mapping[str, BaseDistribution],
        configuration: Callable[[int], Mapping[str, Any]],
        losses: Array,
        running: Sequence[bool] | Array,
        random: np.random.RandomState,
    ) -> dict[str, Any]:
        """The values of the parameters that promise most.

        Args:
            space: the parameters, with more than one value each.
            configuration: gives the values of the trial in a row; asked for those alone that are modelled.
            losses: a row for each trial, in the order of their numbers, the lower the better: what it reported at each
                rung, from the lowest on, and how it ended. NaN where it has not got, and at a rung for a trial that
                reported nothing. At least two trials have a value in the first column that has any.
            running: which of them run.
            random: what candidates are drawn with.
        """
        cube = _Cube(list(space.values()))
        open_places = np.flatnonzero(running)[-_MOST_MODELLED:]
        levels = _levels(losses)
        needed = np.unique(np.concatenate([open_places, *(np.append(level.now, level.then) for level in levels)]))
        rows = np.full((len(losses), len(space)), np.nan)
        known_values = map(configuration, needed)
        rows[needed] = cube.rows([[values[name] for name in space] for values in known_values])
        chain = _Chain(cube.categorical, rows, levels, self._fitted)
        expected, _ = chain.predict(rows[known := np.unique(np.concatenate([level.now for level in levels]))])
        best = float(expected[np.isin(known, levels[-1].now)].min())
        chain.believe(open_places)
        candidates = [cube.sample(_AT_RANDOM, random)]
        for row in rows[known[np.argsort(expected, kind="stable")[:_AROUND]]]:
            candidates += [cube.near(row, _NEAR, spread, random) for spread in (0.2, 0.05)]
        tried = np.vstack(candidates)
        promise = _log_improvement(*chain.predict(tried), best)
        for spread in (0.1, 0.03, 0.01):
            top = tried[np.argsort(-promise, kind="stable")[:_REFINED]]
            closer = np.vstack([cube.near(row, _NEAR, spread, random) for row in top])
            tried = np.vstack([tried, closer])
            promise = np.append(promise, _log_improvement(*chain.predict(closer), best))
        taken = {row.tobytes() for row in np.round(rows[needed], 9)}
        order = np.argsort(-promise, kind="stable")
        new = (place for place in order if np.round(tried[place], 9).tobytes() not in taken)
        return dict(zip(space, cube.values(tried[next(new, order[0])]), strict=True))


def _scores(losses: Array) -> Array:
    """Losses with a mean of 0 and a deviation of 1, those worse than the median brought nearer to it."""
    finite = losses[np.isfinite(losses)]
    if not len(finite):
        return np.zeros(len(losses))
    losses = np.clip(losses, finite.min(), finite.max())
    median, best = float(np.median(losses)), float(losses.min())
    distance = (losses - median) / (median - best if median > best else max(float(losses.max()) - median, 1e-300))
    distance = np.where(distance > 0, np.log1p(np.maximum(distance, 0)), distance)
    scores: Array = (distance - distance.mean()) / max(float(distance.std()), 1e-9)
    return scores


def _log_improvement(mean: Array, variance: Array, best: float) -> Array:
    """The logarithm of the improvement on `best` that is expected where a normal distribution has these moments."""
    deviation = np.sqrt(variance)
    z = (best - mean) / deviation
    density = np.exp(-0.5 * z**2) / math.sqrt(2 * math.pi)
    near = np.log(np.maximum(density + z * ndtr(z), 1e-300))
    far = -0.5 * z**2 - 0.5 * math.log(2 * math.pi) - 2 * np.log(np.maximum(-z, 1.0))  # its limit
    improvement: Array = np.where(z > -5, near, far) + np.log(deviation)
    return improvement


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


@dataclass(frozen=True)
class _Level:
    """A rung, or the end.

    Attributes:
        losses: of all trials there, NaN where a trial has not got there.
        scores: the same as scores.
        now: the places of the trials that its process models.
        then: those that it is fitted to. They are the ones that there were at a number of results that is passed now
            and then, so that the parameters need not be found again for each trial.
    """

    losses: Array
    scores: Array
    now: Array
    then: Array


def _levels(losses: Array) -> list[_Level]:
    """The rungs that at least two trials have reached, from the lowest on, and the end."""
    levels: list[_Level] = []
    here = np.ones(len(losses), bool)
    for column in losses.T[~np.isnan(losses).all(axis=0)]:
        here = here & ~np.isnan(column)
        places = np.flatnonzero(here)
        if len(places) < 2:
            break
        scores = np.full(len(column), np.nan)
        scores[places] = _scores(column[places])
        then = _modelled(column, places[: _last_fit(len(places))])
        levels.append(_Level(column, scores, _modelled(column, places), then))
    return levels


class _Chain:
    """A process for each level; all but the first have the scores of the level below, too."""

    def __init__(self, categorical: Array, rows: Array, levels: Sequence[_Level], fitted: dict[bytes, Array]) -> None:
        """`fitted` holds the parameters of processes, by what they were fitted to; it is added to."""
        self._rows, self._processes = rows, list[_Process]()
        self._scores = [level.scores.copy() for level in levels]
        for below, level in zip([None, *levels], levels, strict=False):
            then, now = level.then, level.now
            lower = b"" if below is None else below.losses[then].tobytes()
            key = b"".join([rows[then].tobytes(), level.losses[then].tobytes(), lower])
            if key not in fitted:
                line = None if below is None else _scores(below.losses[then])
                fitted[key] = _fit(categorical, rows[then], _scores(level.losses[then]), line)
            process = _Process(categorical, fitted[key])
            process.condition(rows[now], level.scores[now], None if below is None else below.scores[now])
            self._processes.append(process)
        while len(fitted) > _REMEMBERED:
            del fitted[next(iter(fitted))]

    def predict(self, rows: Array) -> tuple[Array, Array]:
        """The mean and the variance of what is expected at the end."""
        mean, variance = self._processes[0].predict(rows)
        for process in self._processes[1:]:
            below, uncertain = mean, variance
            mean, variance = process.predict(rows, below)
            variance = variance + process.slope**2 * uncertain
        return mean, variance

    def believe(self, running: Array) -> None:
        """Take running trials to go on as predicted."""
        below = None
        for process, scores in zip(self._processes, self._scores, strict=True):
            ahead = running[np.isnan(scores[running])]
            if len(ahead):
                line = None if below is None else below[ahead]
                scores[ahead], _ = process.predict(self._rows[ahead], line)
                process.add(self._rows[ahead], scores[ahead], line)
            below = scores


def _last_fit(count: int) -> int:
    """The highest number of results, up to `count`, at which a process is fitted."""
    last = 2
    while (following := max(last + 1, int(last * _GROWTH))) <= count:
        last = following
    return last


def _modelled(losses: Array, places: Array) -> Array:
    """The places of the trials that a process models: the newest and the best ones."""
    if len(places) <= _MOST_MODELLED:
        return places
    half = _MOST_MODELLED // 2
    return np.union1d(places[-half:], places[np.argsort(losses[places], kind="stable")[:half]])


def _fit(categorical: Array, rows: Array, scores: Array, below: Array | None) -> Array:
    """The most probable parameters of a process."""
    width = rows.shape[1]
    variance = 1.0 if below is None else 0.5  # of the function; the line explains some of it
    mean = np.append(np.full(width, 0.5 * math.log(width)), [math.log(variance), math.log(_EXPECTED_NOISE)])
    deviation = np.append(np.where(categorical, 1.0, math.sqrt(3)), [1.0, 1.5])
    squares = _squares(categorical, rows)
    if below is None:
        line: Array | float = 0.0
    else:
        line, scores = _line(below, below), scores - _SLOPE * below

    def loss(theta: Array) -> tuple[float, Array]:
        """The negative logarithm of their posterior density, but for a constant, and its gradient."""
        covariance, shared = _matern(squares @ np.exp(-2 * theta[:width]), theta)
        lower = np.linalg.cholesky(covariance + line + _noise(theta) * np.eye(len(scores)))
        half = solve_triangular(lower, np.eye(len(scores)), lower=True, check_finite=False)
        inverse = half.T @ half
        weights = inverse @ scores
        slope = inverse - np.outer(weights, weights)
        gradient = np.empty_like(theta)
        by_length = np.tensordot(shared * slope, squares, axes=2)
        gradient[:width] = 0.5 * by_length * np.exp(-2 * theta[:width])
        gradient[-2] = 0.5 * (slope * covariance).sum()
        gradient[-1] = 0.5 * np.trace(slope) * math.exp(theta[-1])
        z = (theta - mean) / deviation
        value = 0.5 * scores @ weights + np.log(np.diag(lower)).sum() + 0.5 * z @ z
        return float(value), gradient + z / deviation

    bounds = [*([(-4.0, 5.0)] * width), (-6.0, 4.0), (math.log(1e-5), math.log(2.0))]
    options = {"maxiter": _ITERATIONS}
    found: Array = minimize(loss, mean, method="L-BFGS-B", jac=True, bounds=bounds, options=options).x
    return found


_ITERATIONS = 40
_JITTER = 1e-6
_EXPECTED_NOISE = 0.02  # its variance, where scores have one of 1
_SLOPE, _SLOPE_DEVIATION, _SHIFT_DEVIATION = 0.7, 0.7, 1.0
"""The prior of the line from the scores of one rung to those of the next."""


class _Process:
    """A Gaussian process over rows of the cube and, above the lowest rung, the scores of the rung below.

    Its parameters are logarithms: the length scale of each column, the variance of the function, that of the noise.

    Attributes:
        slope: by how much a score grows with the one of the rung below.
    """

    slope = 0.0

    def __init__(self, categorical: Array, theta: Array) -> None:
        self._categorical, self._theta = categorical, theta

    def condition(self, rows: Array, scores: Array, below: Array | None = None) -> None:
        """Take these for what is known."""
        self._rows, self._scores, self._below = rows, scores, below
        covariance = self._covariance(rows)
        if below is not None:
            covariance, scores = covariance + _line(below, below), scores - _SLOPE * below
        self._lower = np.linalg.cholesky(covariance + _noise(self._theta) * np.eye(len(rows)))
        self._weights = cho_solve((self._lower, True), scores, check_finite=False)
        if below is not None:
            self.slope = _SLOPE + _SLOPE_DEVIATION**2 * float(below @ self._weights)

    def add(self, rows: Array, scores: Array, below: Array | None = None) -> None:
        """Take these for known, too."""
        both = None if below is None or self._below is None else np.append(self._below, below)
        self.condition(np.vstack([self._rows, rows]), np.append(self._scores, scores), both)

    def predict(self, rows: Array, below: Array | None = None) -> tuple[Array, Array]:
        """The mean and the variance of the score at rows, without noise."""
        covariance = self._covariance(rows)
        before: Array | float = math.exp(self._theta[-2])
        mean: Array | float = 0.0
        if below is not None and self._below is not None:
            covariance = covariance + _line(below, self._below)
            before = before + _SHIFT_DEVIATION**2 + _SLOPE_DEVIATION**2 * below**2
            mean = _SLOPE * below
        explained = solve_triangular(self._lower, covariance.T, lower=True, check_finite=False)
        return mean + covariance @ self._weights, np.maximum(before - (explained**2).sum(axis=0), 1e-9)

    def _covariance(self, rows: Array) -> Array:
        """With the rows that are known."""
        weights = np.exp(-2 * self._theta[: rows.shape[1]])
        others, categorical = self._rows, self._categorical
        # The square of a difference, without an array of rows by rows by columns.
        numbers = rows[:, ~categorical] * weights[~categorical]
        square = -2 * numbers @ others[:, ~categorical].T
        square += (numbers * rows[:, ~categorical]).sum(axis=1)[:, None]
        square += (weights[~categorical] * others[:, ~categorical] ** 2).sum(axis=1)
        for column in np.flatnonzero(categorical):
            square += weights[column] * (rows[:, None, column] != others[:, column])
        return _matern(np.maximum(square, 0.0), self._theta)[0]


def _squares(categorical: Array, rows: Array) -> Array:
    """The squares of differences: rows by rows by columns."""
    difference = rows[:, None, :] - rows[None, :, :]
    different: Array = difference[:, :, categorical] != 0
    squares: Array = difference**2
    squares[:, :, categorical] = different
    return squares


def _matern(square: Array, theta: Array) -> tuple[Array, Array]:
    """The covariances at squared distances, and the factor of the derivative that all length scales share."""
    distance = _ROOT5 * np.sqrt(square)
    fading = math.exp(theta[-2]) * np.exp(-distance)
    return fading * (1 + distance + 5 / 3 * square), 5 / 3 * fading * (1 + distance)


def _noise(theta: Array) -> float:
    return math.exp(theta[-1]) + _JITTER


def _line(below: Array, others: Array) -> Array:
    """The covariances of a line's values."""
    covariances: Array = _SHIFT_DEVIATION**2 + _SLOPE_DEVIATION**2 * np.outer(below, others)
    return covariances
