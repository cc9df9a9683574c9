"""The full grid: a study with a grid's types whose every parameter has finitely many values runs each combination once.

A combination is a mapping from study name to value. Parameters that depend on others take part in those combinations
alone in which they are searched. Pure.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from aimlhpo.space.dependencies import NOTHING
from aimlhpo.space.search_space import Parameter, SearchSpace

Point = dict[str, Any]


@dataclass(frozen=True)
class Grid:
    """The parameters of a grid, each after those it depends on."""

    parameters: Sequence[Parameter]

    @property
    def permutations(self) -> int:
        """How many combinations there are."""
        if not any(d.type == "optimize_iff" for parameter in self.parameters for d in parameter.dependencies):
            return math.prod(map(size, self.parameters))
        return sum(1 for _ in self.points({}))

    def draw(self, seed: int) -> dict[str, list[Any]]:
        """The values of all `random` parameters by name, from the study's seed."""
        return {
            parameter.name: parameter.definition.draw(parameter.settings, size(parameter), f"{seed}:{parameter.name}")
            for parameter in self.parameters
            if parameter.type == "random"
        }

    def points(self, drawn: Mapping[str, list[Any]]) -> Iterator[Point]:
        """Every combination once, always in the same order; values are those before any multiplication.

        `drawn` has the values of the `random` parameters; where it has none, numbers stand for them.
        """
        values = {}
        for parameter in self.parameters:
            numbers = drawn.get(parameter.name) or list(range(size(parameter)))
            values[parameter.name] = parameter.definition.values(parameter.settings) or numbers
        return combinations(self.parameters, values)


def combinations(parameters: Sequence[Parameter], values: Mapping[str, Sequence[Any]]) -> Iterator[Point]:
    """Every combination of the parameters' values once, conditions followed; values are those before multiplication.

    Args:
        parameters: the parameters, each after those that it depends on.
        values: the values of each by its name.
    """

    def points(left: Sequence[Parameter], given: Point, final: Point) -> Iterator[Point]:
        """`given` are the values so far, `final` the same after multiplication and with those of `otherwise`."""
        if not left:
            yield given
            return
        parameter, others = left[0], left[1:]
        if not parameter.active(final):
            added = {} if parameter.otherwise is NOTHING else {parameter.name: parameter.otherwise}
            yield from points(others, given, {**final, **added})
            return
        for value in values[parameter.name]:
            product = parameter.multiply(value, final)
            yield from points(others, {**given, parameter.name: value}, {**final, parameter.name: product})

    return points(parameters, {}, {})


def grid_of(space: SearchSpace) -> Grid | None:
    """The grid of a search space without problems; None where it is no grid."""
    return Grid(space.in_order) if is_grid(space) else None


def is_grid(space: SearchSpace) -> bool:
    """Whether a type of a grid is among the parameters, and all are sound and have finitely many values."""
    parameters = space.parameters
    return any(p.sound and p.of_grid for p in parameters) and all(p.sound and size(p) for p in parameters)


def size(parameter: Parameter) -> int:
    """How many values a sound parameter has in a grid; 0 where there are infinitely many."""
    return parameter.definition.size(parameter.settings)
