"""A task: a search space, and the learning curve of each of its configurations.

A recorded task is an `.npz` file:

    space     JSON: a list of {"name", "type": "float" | "int" | "categorical", "low", "high", "log", "choices"}, each
              perhaps with "when": {name: [values]}, where only some configurations have the parameter
    x         n by d, a configuration in each row; a categorical as the index of its choice, NaN where there is none
    y         n by epochs: the value after each epoch, lower is better
    seconds   n, optional: what each training took

Configurations that were not recorded get the curve that an ensemble of trees predicts (extremely randomized trees,
Geurts et al. 2006; at least two recorded ones in each leaf), so that curves keep their shapes, crossings included.
Where `x` holds every configuration that there is, its curves are used as they are. Where it holds one more than
once, each trial gets the deviation of such a recording from their mean, as the noise of its seed.
"""

from __future__ import annotations

import json
import math
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

TASKS = Path(__file__).with_name("tasks")
Array = np.ndarray[Any, Any]
Space = Sequence[Mapping[str, Any]]

_RANDOM = 20_000  # configurations of which the median is taken
_TREES = 32
_ALIKE = 6  # deviations that a trial's noise is drawn from
_FAR = 20.0  # times from the best to the median of an epoch: values beyond it are as bad


@dataclass(frozen=True, eq=False)
class Task:
    """Something to search.

    Attributes:
        curves: the values after each epoch, without noise, for configurations in rows of the unit cube.
        seconds: how long one epoch takes, for the same rows.
        noise: deviations of single trainings, one in each row. Each trial gets one of those around which trainings end
            most like it: bad ones are often the noisier ones.
        noise_around: the final value, without noise, of the trainings that deviated.
        fits: which rows fit into memory; the others fail in their first epoch. None: all of them.
    """

    name: str
    space: Space
    epochs: int
    curves: Callable[[Array], Array]
    seconds: Callable[[Array], Array]
    noise: Array
    noise_around: Array
    fits: Callable[[Array], Array] | None = None

    def curve(self, values: Mapping[str, Any], seed: int) -> Array:
        """What a training with these values reports."""
        mean: Array = self.curves(unit_row(self.space, values)[None])[0]
        if not len(self.noise):
            return mean
        alike = np.argsort(np.abs(self.noise_around - mean[-1]), kind="stable")[:_ALIKE]
        noisy: Array = mean + self.noise[np.random.default_rng(seed).choice(alike)]
        return noisy

    def final(self, values: Mapping[str, Any]) -> float:
        """The value at the end, without noise."""
        return float(self.curves(unit_row(self.space, values)[None])[0, -1])

    def is_feasible(self, values: Mapping[str, Any]) -> bool:
        """Whether a training with these values fits into memory."""
        return self.fits is None or bool(self.fits(unit_row(self.space, values)[None])[0])

    def epoch_seconds(self, values: Mapping[str, Any]) -> float:
        return float(self.seconds(unit_row(self.space, values)[None])[0])

    @cached_property
    def scale(self) -> tuple[float, float]:
        """The best final value known, and the median of random configurations."""
        random = np.random.default_rng(0)
        rows = _random_rows(self.space, _RANDOM, random)
        finals = self.curves(rows)[:, -1]
        median = float(np.median(finals))
        for spread in (0.2, 0.05, 0.02, 0.005):  # look around the best ones
            best = rows[np.argsort(finals)[:100]]
            moved = np.repeat(best, 30, axis=0)
            changed = random.random(moved.shape) < 0.4
            step = random.normal(0, spread, moved.shape)
            moved = np.where(changed, np.clip(moved + step, 0, 1), moved)
            moved = _legal(self.space, moved)
            rows = np.concatenate([best, moved])
            finals = self.curves(rows)[:, -1]
        return float(finals.min()), median

    def regret(self, final: float) -> float:
        """0 for the best value known, 1 for the median of random configurations."""
        best, median = self.scale
        return (final - best) / (median - best) if median > best else 0.0


def load(file: Path) -> Task:
    """The task of a file. Raises ValueError where its arrays do not fit together."""
    with np.load(file, allow_pickle=False) as arrays:
        space = json.loads(str(arrays["space"]))
        x, y = np.asarray(arrays["x"], float), np.asarray(arrays["y"], float)
        seconds = np.asarray(arrays["seconds"], float) if "seconds" in arrays else np.full(len(x), y.shape[-1])
    if y.ndim != 2 or x.shape != (len(y), len(space)) or seconds.shape != (len(y),):
        raise ValueError(f"{file}: x is {x.shape}, y is {y.shape}, with {len(space)} parameters")
    rows = np.array([unit_row(space, values_of(space, row)) for row in x])
    y = _bounded(y)
    unique, inverse = np.unique(rows, axis=0, return_inverse=True)
    inverse = inverse.reshape(-1)
    counts = np.bincount(inverse)
    means = np.stack([np.bincount(inverse, column) for column in y.T], axis=1) / counts[:, None]
    repeated = counts[inverse] > 1
    # The deviations from a mean of m are too small by sqrt((m - 1) / m).
    factor = np.sqrt(counts / np.maximum(counts - 1, 1))[inverse][repeated, None]
    noise = (y - means[inverse])[repeated] * factor
    pace = np.log(np.maximum(np.bincount(inverse, seconds) / counts / y.shape[1], 1e-9))
    model = _table(unique, means, pace) if len(unique) == _size(space) else _trees(unique, means, pace)
    return Task(
        file.stem,
        space,
        y.shape[1],
        curves=lambda rows: model(rows)[:, :-1],
        seconds=lambda rows: np.exp(model(rows)[:, -1]),
        noise=noise,
        noise_around=means[inverse][repeated, -1],
    )


def _bounded(y: Array) -> Array:
    """The values with the worst ones of each epoch, diverged ones among them, brought nearer."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        finite = np.where(np.isfinite(y), y, np.nan)
        best, median = np.nanmin(finite, axis=0), np.nanmedian(finite, axis=0)
    worst = best + _FAR * np.maximum(median - best, 1e-12)
    bounded: Array = np.minimum(np.where(np.isfinite(y), y, worst), worst)
    return bounded


def _table(rows: Array, means: Array, pace: Array) -> Callable[[Array], Array]:
    """Looks a configuration up."""
    place = {row.tobytes(): number for number, row in enumerate(np.round(rows, 9))}
    known = np.column_stack([means, pace])
    return lambda asked: known[[place[row.tobytes()] for row in np.round(asked, 9)]]


def _trees(rows: Array, means: Array, pace: Array) -> Callable[[Array], Array]:
    """Predicts the curve of a configuration, and the logarithm of its seconds for an epoch, in the last column."""
    from sklearn.ensemble import ExtraTreesRegressor

    scale = np.maximum(means.std(axis=0), 1e-12)
    ensemble = ExtraTreesRegressor(_TREES, min_samples_leaf=2, random_state=0)
    goals = np.column_stack([means / scale, pace / max(float(pace.std()), 1e-12)])
    ensemble.fit(rows, goals)
    known = np.column_stack([means, pace])
    trees = [tree.tree_ for tree in ensemble.estimators_]
    leaves = []
    for tree in trees:  # the mean of what lies in each leaf, in the units of the recording
        leaf_of = tree.apply(rows.astype(np.float32))
        count = np.maximum(np.bincount(leaf_of, minlength=tree.node_count), 1)
        sums = [np.bincount(leaf_of, column, tree.node_count) for column in known.T]
        leaves.append(np.stack(sums, axis=1) / count[:, None])

    def predict(asked: Array) -> Array:
        asked = asked.astype(np.float32)
        total = np.zeros((len(asked), known.shape[1]))
        for tree, leaf in zip(trees, leaves, strict=True):
            total += leaf[tree.apply(asked)]
        return total / len(trees)

    return predict


# --- configurations ---


def active(entry: Mapping[str, Any], values: Mapping[str, Any]) -> bool:
    """Whether a configuration has the parameter."""
    return all(values.get(name) in allowed for name, allowed in entry.get("when", {}).items())


def row_of(space: Space, values: Mapping[str, Any]) -> list[float]:
    """A configuration as a row of `x`."""
    row = []
    for entry in space:
        value = values.get(entry["name"], math.nan)
        if entry["type"] == "categorical" and entry["name"] in values:
            value = next(i for i, known in enumerate(entry["choices"]) if type(known) is type(value) and known == value)
        row.append(float(value))
    return row


def values_of(space: Space, row: Sequence[float] | Array) -> dict[str, Any]:
    """A row of `x` as a configuration."""
    values: dict[str, Any] = {}
    for entry, value in zip(space, row, strict=True):
        if not math.isnan(value):
            kind = entry["type"]
            values[entry["name"]] = (
                entry["choices"][round(value)]
                if kind == "categorical"
                else round(value)
                if kind == "int"
                else float(value)
            )
    return values


def unit_row(space: Space, values: Mapping[str, Any]) -> Array:
    """A configuration as a point of the unit cube; -1 for a parameter that it does not have."""
    row = np.full(len(space), -1.0)
    for place, entry in enumerate(space):
        if entry["name"] not in values:
            continue
        value = values[entry["name"]]
        if entry["type"] == "categorical":
            number = next(
                i for i, known in enumerate(entry["choices"]) if type(known) is type(value) and known == value
            )
            row[place] = number / max(len(entry["choices"]) - 1, 1)
            continue
        low, high = entry["low"], entry["high"]
        if entry.get("log"):
            low, high, value = math.log(low), math.log(high), math.log(value)
        row[place] = min(max((value - low) / (high - low), 0.0), 1.0) if high > low else 0.0
    return row


def _size(space: Space) -> int | float:
    """How many configurations there are; infinite where a parameter is a real number or conditional."""
    sizes = [
        math.inf
        if entry["type"] == "float" or entry.get("when")
        else len(entry["choices"])
        if entry["type"] == "categorical"
        else entry["high"] - entry["low"] + 1
        for entry in space
    ]
    return math.prod(sizes)


def _random_rows(space: Space, number: int, random: np.random.Generator) -> Array:
    return _legal(space, random.random((number, len(space))))


def _legal(space: Space, rows: Array) -> Array:
    """Points of the cube moved to the nearest configurations."""
    legal = np.clip(rows, 0, 1)
    for place, entry in enumerate(space):
        if entry["type"] == "categorical":
            most = max(len(entry["choices"]) - 1, 1)
            legal[:, place] = np.minimum(np.floor(legal[:, place] * len(entry["choices"])), most) / most
            if len(entry["choices"]) == 1:
                legal[:, place] = 0.0
        elif entry["type"] == "int":
            low, high = entry["low"], entry["high"]
            if entry.get("log"):
                low, high = math.log(low), math.log(high)
                whole = np.round(np.exp(low + legal[:, place] * (high - low)))
                legal[:, place] = (np.log(whole) - low) / max(high - low, 1e-12)
            else:
                legal[:, place] = np.round(legal[:, place] * (high - low)) / max(high - low, 1e-12)
        if entry.get("when"):
            here = np.ones(len(legal), bool)
            for name, allowed in entry["when"].items():
                other = next(number for number, known in enumerate(space) if known["name"] == name)
                marks = [unit_row(space, {name: value})[other] for value in allowed]
                here &= np.isin(np.round(legal[:, other], 9), np.round(marks, 9))
            legal[~here, place] = -1.0
    return legal
