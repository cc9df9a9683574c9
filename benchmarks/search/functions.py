"""Tasks that are formulas: their optimum is known, and their curves do what recorded ones seldom do."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from benchmarks.search.task import Array, Task

EPOCHS = 27
_STEPS = np.arange(1, EPOCHS + 1) / EPOCHS

_HARTMANN_A = np.array(
    [[10, 3, 17, 3.5, 1.7, 8], [0.05, 10, 17, 0.1, 8, 14], [3, 3.5, 1.7, 10, 17, 8], [17, 8, 0.05, 10, 0.1, 14]]
)
_HARTMANN_P = 1e-4 * np.array(
    [
        [1312, 1696, 5569, 124, 8283, 5886],
        [2329, 4135, 8307, 3736, 1004, 9991],
        [2348, 1451, 3522, 2883, 3047, 6650],
        [4047, 8828, 8732, 5743, 1091, 381],
    ]
)
_HARTMANN_ALPHA = np.array([1.0, 1.2, 3.0, 3.2])


def hartmann(rows: Array) -> Array:
    """Hartmann's function of six variables (Dixon and Szegö 1978)."""
    distance = (_HARTMANN_A * (rows[:, None, :] - _HARTMANN_P) ** 2).sum(axis=2)
    value: Array = -(np.exp(-distance) * _HARTMANN_ALPHA).sum(axis=1)
    return value


def ackley(rows: Array) -> Array:
    """Ackley's function (1987), its minimum away from the middle."""
    z = rows * 10 - 4
    value: Array = 20 - 20 * np.exp(-0.2 * np.sqrt((z**2).mean(1))) + np.e - np.exp(np.cos(2 * np.pi * z).mean(1))
    return value


def _learned(final: Callable[[Array], Array]) -> Callable[[Array], Array]:
    """Curves that fall to the final value: the faster, the larger the first variable."""

    def curves(rows: Array) -> Array:
        pace = 2 + 6 * rows[:, :1]
        curve: Array = final(rows)[:, None] + 2.0 * np.exp(-pace * _STEPS)
        return curve

    return curves


def _crossing(final: Callable[[Array], Array]) -> Callable[[Array], Array]:
    """Curves that lie in the opposite order until a third of the training."""

    def curves(rows: Array) -> Array:
        end = final(rows)[:, None]
        turned = 1 / (1 + np.exp(-(_STEPS - 1 / 3) * 30))
        curve: Array = end * turned - end * (1 - turned) + 1 - _STEPS
        return curve

    return curves


def _only_at_the_end(final: Callable[[Array], Array]) -> Callable[[Array], Array]:
    """One value, at the end: nothing to stop a training by."""
    return lambda rows: final(rows)[:, None]


def _unrelated(final: Callable[[Array], Array]) -> Callable[[Array], Array]:
    """Reports that say nothing about the end, where alone the value appears."""

    def curves(rows: Array) -> Array:
        wave = np.sin(1e3 * rows.sum(axis=1, keepdims=True) + 5 * np.arange(EPOCHS))
        curve: Array = np.where(np.arange(EPOCHS) == EPOCHS - 1, final(rows)[:, None], wave)
        return curve

    return curves


def _task(name: str, dimensions: int, curves: Callable[[Array], Array], noise: float = 0.0) -> Task:
    space: list[Mapping[str, Any]] = [
        {"name": f"x{place}", "type": "float", "low": 0.0, "high": 1.0, "log": False} for place in range(dimensions)
    ]
    epochs = curves(np.zeros((1, dimensions))).shape[1]
    deviations = np.random.default_rng(0).normal(0, noise, (200 if noise else 0, epochs))
    around = np.zeros(len(deviations))
    return Task(name, space, epochs, curves, lambda rows: np.ones(len(rows)), deviations, around)


FUNCTIONS = {
    task.name: task
    for task in (
        _task("hartmann", 6, _learned(hartmann)),
        _task("hartmann-noisy", 6, _learned(hartmann), noise=0.2),
        _task("ackley", 5, _learned(ackley)),
    )
}
"""What is learned step by step."""

LYING = {
    task.name: task
    for task in (
        _task("crossing", 6, _crossing(hartmann)),
        _task("crossing-ackley", 5, _crossing(lambda rows: ackley(rows) / 5)),
        _task("unrelated", 6, _unrelated(hartmann)),
        _task("end-only", 6, _only_at_the_end(hartmann)),
    )
}
"""What a search must not be misled by."""

MEMORY = "hartmann-memory"
"""A third of its space needs more memory than there is: where two variables are large, as width and batch may be."""

_MEMORY = 2 - math.sqrt(2 / 3)  # what a sum of two uniform variables exceeds in a third of all cases

WITH_FAILURES = {
    MEMORY: replace(FUNCTIONS["hartmann"], name=MEMORY, fits=lambda rows: rows[:, 4] + rows[:, 5] < _MEMORY)
}
