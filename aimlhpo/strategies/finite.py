"""Values that a strategy names: whether they are the parameters', and how many combinations there are."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

from aimlhpo.config.dependencies import NOTHING
from aimlhpo.errors import Problem
from aimlhpo.space import Parameter, SearchSpace
from aimlhpo.strategies.situation import Situation, fits
from aimlhpo.suggestions import did_you_mean, key_path, listing, show

MOST = 10_000  # combinations that are counted one by one


def value_problems(values: Any, where: str, study: Situation) -> Iterator[Problem]:
    """Values by name, of parameters that are not declared, or that are not among the parameter's."""
    for name, value in values.items() if isinstance(values, Mapping) else ():
        yield from _unknown(name, where, study)
        parameter = study.by_name.get(name)
        if parameter is not None and not fits(parameter, value):
            yield _outside(parameter, value, key_path(where, name))


def grid_problems(grid: Mapping[str, Any], where: str, study: Situation) -> Iterator[Problem]:
    """A grid must have values for every parameter, and for no other; each may have them in any number."""
    for name, values in grid.items():
        yield from _unknown(name, where, study)
        here = key_path(where, name)
        if not values:
            yield Problem(here, "is an empty list", "a list with at least one value")
        elif name in study.by_name:
            yield from (_outside(study.by_name[name], v, here) for v in values if not fits(study.by_name[name], v))
            yield from _twice(values, here)
    missing = [name for name in study.by_name if name not in grid]
    if missing:
        yield Problem(where, f"has no values for {listing(missing)}", "a list of values for every parameter")


def _unknown(name: str, where: str, study: Situation) -> Iterator[Problem]:
    if study.by_name and name not in study.by_name:
        near = did_you_mean(name, study.by_name)
        yield Problem(key_path(where, name), "no parameter of this name", listing(study.by_name), near)


def _outside(parameter: Parameter, value: Any, where: str) -> Problem:
    return Problem(where, f"{show(value)} is not a value of {parameter.name}", _values(parameter))


def _twice(values: list[Any], where: str) -> Iterator[Problem]:
    shown = [show(value) for value in values]
    repeated = listing(dict.fromkeys(value for value in shown if shown.count(value) > 1))
    if repeated:
        yield Problem(where, f"{repeated} is listed twice, and its combinations would run twice", "each value once")


def _values(parameter: Parameter) -> str:
    stored = parameter.distribution
    if isinstance(stored, CategoricalDistribution):
        return listing(show(parameter.codec.decode(choice)) for choice in stored.choices)
    if isinstance(stored, IntDistribution | FloatDistribution):
        if parameter.codec.meaning():
            return listing(map(show, parameter.codec.meaning()["values"]))
        return f"from {stored.low} to {stored.high}" + (f" in steps of {stored.step}" if stored.step else "")
    return "a value of the parameter"


def count(space: SearchSpace) -> int | None:
    """The combinations of a space without endless ranges, conditions followed; None where there are too many."""
    total = 1
    for parameter in space.parameters:
        total *= len(stored_values(parameter))
        if total > MOST:
            return None
    return _points(space.in_order, {})


def _points(parameters: Sequence[Parameter], values: Mapping[str, Any]) -> int:
    """The combinations of the parameters, where those before them have these values."""
    if not parameters:
        return 1
    first, others = parameters[0], parameters[1:]
    if not first.active(values):
        given = {} if first.otherwise is NOTHING else {first.name: first.otherwise}
        return _points(others, {**values, **given})
    return sum(_points(others, {**values, first.name: first.finish(stored, values)}) for stored in stored_values(first))


def stored_values(parameter: Parameter) -> list[Any]:
    """What the storage may hold for the parameter, which has no endless range."""
    stored = parameter.distribution
    if isinstance(stored, CategoricalDistribution):
        return list(stored.choices)
    if isinstance(stored, IntDistribution):
        return list(range(stored.low, stored.high + 1, stored.step))[: MOST + 1]
    assert isinstance(stored, FloatDistribution)
    steps = round((stored.high - stored.low) / stored.step) if stored.step else 0
    return [stored.low + position * (stored.step or 0) for position in range(min(steps, MOST) + 1)]
