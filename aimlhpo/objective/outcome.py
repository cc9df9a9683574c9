"""From what an objective returned to the numbers that go into the study, and the errors that fail or prune a trial.

Imports no framework: arrays and tensors are recognised by their attributes.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from numbers import Real
from typing import Any

from aimlhpo.errors import AimlhpoError
from aimlhpo.objective.trial import one_element, plain


class OutcomeError(AimlhpoError):
    """A trial did not give what the study needs; `cause` is what is stored with the failed trial."""

    def __init__(self, cause: str, message: str) -> None:
        self.cause = cause
        super().__init__(message)

    def __reduce__(self) -> tuple[type[OutcomeError], tuple[str, str]]:
        return type(self), (self.cause, str(self))


class Pruned(AimlhpoError):
    """The trial is pruned: the same as `optuna.TrialPruned`, without loading Optuna."""


class MissingMetric(OutcomeError):
    """The returned dict lacks a metric of the study."""


class BadValue(OutcomeError):
    """A metric's value is not a finite real number."""


def extract_values(results: Any, metrics: Sequence[str]) -> list[float]:
    """The values of `metrics`, in their order, out of a dict, a number, or (several metrics) a list or tuple.

    Scalars, arrays and tensors with one element, of any framework, count as the numbers they hold.
    Raises MissingMetric or BadValue, naming what was returned.
    """
    if isinstance(results, Mapping):
        for metric in metrics:
            if metric not in results:
                names = _shorten(", ".join(sorted(map(str, results))) or "nothing")
                raise MissingMetric(
                    f"missing metric: {metric}; returned: {names}",
                    f"the returned dict has no metric {metric!r}; it holds: {names}",
                )
        values = [results[metric] for metric in metrics]
    elif len(metrics) == 1:
        values = [results]
    elif isinstance(results, list | tuple) and len(results) == len(metrics):
        values = list(results)
    else:
        expected = f"a dict or a list with the {len(metrics)} metrics {', '.join(metrics)}"
        raise BadValue(f"bad value: {_describe(results)}", f"expected {expected}, got {_describe(results)}")
    return [_number(metric, value) for metric, value in zip(metrics, values, strict=True)]


def scalars(results: Any) -> dict[str, int | float | str | bool]:
    """The scalar entries of a returned dict, as plain Python values: what is kept with the trial."""
    if not isinstance(results, Mapping):
        return {}
    found = {str(name): one_element(value) for name, value in results.items()}
    return {name: plain(value) for name, value in found.items() if isinstance(value, int | float | str)}


def _number(metric: str, value: Any) -> float:
    found = one_element(value)
    if isinstance(found, bool) or not isinstance(found, Real):
        raise _bad(metric, value, "a number is needed")
    try:
        number = float(found)
    except OverflowError:
        raise _bad(metric, value, "it does not fit into a float") from None
    if math.isnan(number):
        raise BadValue("nan", f"metric {metric!r} is nan")
    if math.isinf(number):
        raise _bad(metric, value, "a finite number is needed")
    return number


def _bad(metric: str, value: Any, need: str) -> BadValue:
    what = _describe(value)
    return BadValue(f"bad value: {metric} is {what}", f"metric {metric!r} is {what}; {need}")


def _describe(value: Any) -> str:
    if value is None:
        return "None"
    cls = type(value)
    name = cls.__name__ if cls.__module__ == "builtins" else f"{cls.__module__}.{cls.__qualname__}"
    try:
        text = repr(value)
    except Exception as error:  # noqa: BLE001 -- a user's class may fail to describe itself
        text = f"<no repr: {type(error).__name__}>"
    return f"{_shorten(text)} ({name})"


def _shorten(text: str, limit: int = 200) -> str:
    line = " ".join(text.split())
    return line if len(line) <= limit else f"{line[: limit - 3]}..."
