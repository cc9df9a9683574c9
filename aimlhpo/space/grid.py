"""The full grid: a study with a grid's types whose every parameter has finitely many values runs each combination once.

A combination is a mapping from study name to value. Parameters that depend on others take part in those combinations
alone in which they are searched.
What is wrong with a full grid, and its number of trials.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from aimlhpo.errors import Problem, key_path, show
from aimlhpo.space.declared import Declared, declared, search_space_problems
from aimlhpo.space.dependencies import NOTHING, Dependency, dependency_order, listed, parse, resolve
from aimlhpo.space.parameter_types import GRID_DOMAINS, as_number, draw, finite_values

MOST_PERMUTATIONS = 1_000_000
Point = dict[str, Any]


@dataclass(frozen=True)
class Axis:
    """One parameter of a grid; `links` are its dependencies, each with the other's name or a fixed value."""

    name: str
    type: str
    settings: Mapping[str, Any]
    links: tuple[tuple[Dependency, str | None, Any], ...]

    @property
    def count(self) -> int:
        """How many values a `random` axis draws."""
        return int(as_number(self.settings["count"]) or 0)

    def values(self, drawn: Mapping[str, list[Any]]) -> list[Any]:
        """All values; those of a `random` axis out of `drawn`, or numbers that stand for them."""
        if self.type == "random":
            return drawn.get(self.name) or list(range(self.count))
        return finite_values(self.type, self.settings) or []

    def draw(self, seed: int) -> list[Any]:
        """The values of a `random` axis, from the study's seed."""
        source = self.settings["distribution"]
        return draw(source["type"], source["settings"], self.count, f"{seed}:{self.name}")

    def place(self, final: Mapping[str, Any]) -> list[tuple[Dependency, Any]]:
        """Its dependencies with the others' values in a combination; NOTHING where one is left out."""
        return [(link, fixed if name is None else final.get(name, NOTHING)) for link, name, fixed in self.links]


@dataclass(frozen=True)
class Grid:
    """All axes, each after those it depends on."""

    axes: Sequence[Axis]

    @property
    def permutations(self) -> int:
        """How many combinations there are."""
        if not any(link.type == "optimize_iff" for axis in self.axes for link, _, _ in axis.links):
            return math.prod(len(axis.values({})) for axis in self.axes)
        return sum(1 for _ in self.points({}))

    def draw(self, seed: int) -> dict[str, list[Any]]:
        """The values of all `random` axes, by name."""
        return {axis.name: axis.draw(seed) for axis in self.axes if axis.type == "random"}

    def points(self, drawn: Mapping[str, list[Any]]) -> Iterator[Point]:
        """Every combination once, always in the same order; values are those before any multiplication."""
        values = {axis.name: axis.values(drawn) for axis in self.axes}
        return _points(list(self.axes), values, {}, {})


def _points(axes: list[Axis], values: Mapping[str, list[Any]], given: Point, final: Point) -> Iterator[Point]:
    """`given` are the values so far, `final` the same after multiplication and with those of `otherwise`."""
    if not axes:
        yield given
        return
    axis, rest = axes[0], axes[1:]
    links = axis.place(final)
    if not all(other is not NOTHING and link.holds(other) for link, other in links):
        otherwise = next((link.otherwise for link, _ in links if link.otherwise is not NOTHING), NOTHING)
        added = {} if otherwise is NOTHING else {axis.name: otherwise}
        yield from _points(rest, values, given, {**final, **added})
        return
    for value in values[axis.name]:
        product = value
        for link, other in links:
            product = product * other if link.type == "multiply" else product
        yield from _points(rest, values, {**given, axis.name: value}, {**final, axis.name: product})


def grid_of(optuna: Mapping[str, Any], model: Mapping[str, Any]) -> Grid | None:
    """The grid that the (plain, correct) data of both files declare; None where the study is no grid."""
    found = declared(optuna.get("parameters"), model)
    if not is_grid(found):
        return None
    names = {parameter.key: parameter.name for parameter in found}
    axes = {parameter.name: _axis(parameter, names, model) for parameter in found}
    needs = {axis.name: [name for _, name, _ in axis.links if name is not None] for axis in axes.values()}
    return Grid([axes[name] for name in (dependency_order(needs) if any(needs.values()) else needs)])


def is_grid(found: Sequence[Declared]) -> bool:
    """Whether a type of a grid is among the parameters, and all are finite."""
    return any(p.sound and p.entry["type"] in GRID_DOMAINS for p in found) and all(p.sound and size(p) for p in found)


def size(parameter: Declared) -> int:
    """How many values a sound parameter has in a grid; 0 where there are infinitely many."""
    kind, settings = parameter.entry["type"], parameter.entry["settings"]
    if kind == "random":
        return int(as_number(settings["count"]) or 0)
    return len(finite_values(kind, settings) or [])


def _axis(parameter: Declared, names: Mapping[str, str], model: Mapping[str, Any]) -> Axis:
    links = []
    for dependency in parse(parameter.entry.get("dependency")):
        key, fixed = resolve(dependency.on, names, model)
        links.append((dependency, None if key is None else names[key], fixed))
    return Axis(parameter.name, parameter.entry["type"], parameter.entry["settings"], tuple(links))


UNLISTED = "a parameter with finitely many values, or no `random` parameters in this study"


def fill_n_trials(optuna: dict[str, Any], model: Mapping[str, Any]) -> None:
    """Without `n_trials`, a grid has as many trials as permutations; in place."""
    found = declared(optuna.get("parameters"), model)
    if optuna.get("n_trials") is not None or not any(_is_of_grid(parameter) for parameter in found):
        return
    problems = [*search_space_problems(optuna, model), *_own_problems(optuna, found)]
    grid = None if problems else grid_of(optuna, model)
    if grid is not None:
        optuna["n_trials"] = grid.permutations
    elif problems:
        optuna["n_trials"] = 1  # nothing will run: the problems alone are told, not that the number is missing


def grid_problems(optuna: Mapping[str, Any], model: Mapping[str, Any]) -> list[Problem]:
    """Mistakes that a search space has as a grid; it must be correct otherwise."""
    found = declared(optuna.get("parameters"), model)
    problems = _own_problems(optuna, found)
    if problems or not is_grid(found):
        return problems
    grid = grid_of(optuna, model)
    n_trials = as_number(optuna.get("n_trials"))
    if grid is not None and n_trials is not None and n_trials > grid.permutations:
        what = f"{show(n_trials)} is more than the {grid.permutations} permutations of the grid"
        legal = f"up to {grid.permutations}; or leave it out, and all of them run"
        problems.append(Problem(key_path("optuna", "n_trials"), what, legal))
    return problems


def _is_of_grid(parameter: Declared) -> bool:
    kind = parameter.entry.get("type")
    return isinstance(kind, str) and kind in GRID_DOMAINS


def _own_problems(optuna: Mapping[str, Any], found: Sequence[Declared]) -> list[Problem]:
    if not any(_is_of_grid(parameter) for parameter in found):
        return []
    if not is_grid(found):
        return list(_random_in_no_grid(found))
    return [*_nothing_else(optuna), *_random_conditions(found), *_size(found)]


def _random_in_no_grid(found: Sequence[Declared]) -> Iterator[Problem]:
    """`random` means so many values: a sampler would not stop at them."""
    infinite = [p for p in found if p.sound and not size(p)]
    for parameter in found:
        if parameter.entry.get("type") == "random" and infinite:
            what = f"is a grid's type, and {infinite[0].key} has infinitely many values, which makes no grid"
            yield Problem(key_path(*parameter.where, parameter.words[0]), what, UNLISTED)


def _nothing_else(optuna: Mapping[str, Any]) -> Iterator[Problem]:
    """Every combination is run, so there is nothing to choose."""
    if optuna.get("sampler") is not None:
        what = "a grid runs every combination, so that no sampler chooses any"
        yield Problem(key_path("optuna", "sampler"), what, "no sampler; or other types than the grid's")
    for key in ("enqueue", "enqueue_default"):
        if optuna.get(key):
            yield Problem(key_path("optuna", key), "a grid queues every combination itself", f"no {key}")
    if optuna.get("warm_start_from"):
        what = "a grid runs every combination, so that nothing is learned from other trials"
        yield Problem(key_path("optuna", "warm_start_from"), what, "no warm_start_from; or other types than the grid's")


def _random_conditions(found: Sequence[Declared]) -> Iterator[Problem]:
    """Which combinations there are must be known before values are drawn."""
    drawn = {name for p in found if p.entry["type"] == "random" for name in (p.key, p.name)}
    for parameter in found:
        for entry in listed(parameter.entry.get("dependency")):
            spelled = str(entry.get("on")) if isinstance(entry, Mapping) else ""
            names = {spelled, spelled.replace(".", ":"), spelled.replace(".", ":").removeprefix("model:")}
            if isinstance(entry, Mapping) and entry.get("type") == "optimize_iff" and names & drawn:
                where = key_path(*parameter.where, "dependency", "on")
                what = f"{spelled} is drawn at random, so that the number of permutations would not be known"
                yield Problem(where, what, "a parameter of another type")


def _size(found: Sequence[Declared]) -> Iterator[Problem]:
    bound = math.prod(map(size, found))
    if bound > MOST_PERMUTATIONS:
        what = f"make a grid of {bound} permutations"
        yield Problem(key_path("optuna", "parameters"), what, f"up to {MOST_PERMUTATIONS}")
