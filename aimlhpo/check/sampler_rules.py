"""What a study asks of its sampler and pruner: parameters, metrics, budget, constraints.
Values that a strategy names: whether they are the parameters', and how many combinations there are.
Constraints that a study can never compute, as far as its files tell.
Samplers and pruners that cannot work with a study's parameters, metrics or budget: told before anything runs.
Whether a study's sampler and pruner suit what it searches: what cannot work together, then a rehearsal.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.pruners import HyperbandPruner
from optuna.samplers import BruteForceSampler, CmaEsSampler, GPSampler, GridSampler, NSGAIIISampler, PartialFixedSampler
from optuna.study import StudyDirection

from aimlhpo.errors import Problem, did_you_mean, key_path, listing, show
from aimlhpo.search.building import as_entry
from aimlhpo.search.registry import class_named, nested_kind, options
from aimlhpo.space.constraints import Constraint, parse_constraints
from aimlhpo.space.dependencies import NOTHING
from aimlhpo.space.search_space import Parameter, SearchSpace

if TYPE_CHECKING:
    from aimlhpo.config.schema import Config


@dataclass(frozen=True)
class StudyContext:
    """`metric` are the study's metrics; `n_trials` is its budget."""

    space: SearchSpace
    metric: tuple[str, ...]
    directions: tuple[StudyDirection, ...]
    n_trials: int
    constraints: tuple[Constraint, ...] = ()

    @classmethod
    def of(cls, config: Config) -> StudyContext:
        """From a checked configuration."""
        options = config.optuna
        space = config.space
        constraints = parse_constraints(options.constraints)
        directions = tuple(StudyDirection[direction.upper()] for direction in options.direction)
        return cls(space, tuple(options.metric), directions, options.n_trials, constraints)

    @cached_property
    def by_name(self) -> dict[str, Parameter]:
        """The declared parameters; an objective may suggest others."""
        return {parameter.name: parameter for parameter in self.space.parameters}

    @property
    def ranges(self) -> list[Parameter]:
        """Parameters that are a range of numbers, with more than one value."""
        found = self.space.parameters
        return [p for p in found if not is_categorical(p) and not p.distribution.single()]

    def in_every_trial(self, parameter: Parameter) -> bool:
        """Whether no trial is without the parameter."""
        return all(
            dependency.holds(dependency.fixed)
            if dependency.name is None
            else dependency.type == "multiply" and self.in_every_trial(self.by_name[dependency.name])
            for dependency in parameter.dependencies
        )


def is_categorical(parameter: Parameter) -> bool:
    return isinstance(parameter.distribution, CategoricalDistribution)


def is_endless(parameter: Parameter) -> bool:
    """Whether a parameter has more values than can be counted."""
    stored = parameter.distribution
    return isinstance(stored, FloatDistribution) and stored.step is None and not stored.single()


def value_fits(parameter: Parameter, value: object) -> bool:
    """Whether a value in the user's words is one of the parameter's."""
    stored = parameter.distribution
    try:
        return stored._contains(stored.to_internal_repr(parameter.codec.encode(value)))
    except (ValueError, TypeError):
        return False


MOST_POINTS = 10_000  # combinations that are counted one by one


def value_problems(values: Any, where: str, study: StudyContext) -> Iterator[Problem]:
    """Values by name, of parameters that are not declared, or that are not among the parameter's."""
    for name, value in values.items() if isinstance(values, Mapping) else ():
        yield from _unknown(name, where, study)
        parameter = study.by_name.get(name)
        if parameter is not None and not value_fits(parameter, value):
            yield _outside(parameter, value, key_path(where, name))


def grid_sampler_problems(grid: Mapping[str, Any], where: str, study: StudyContext) -> Iterator[Problem]:
    """A grid must have values for every parameter, and for no other; each may have them in any number."""
    for name, values in grid.items():
        yield from _unknown(name, where, study)
        here = key_path(where, name)
        if not values:
            yield Problem(here, "is an empty list", "a list with at least one value")
        elif name in study.by_name:
            yield from (
                _outside(study.by_name[name], v, here) for v in values if not value_fits(study.by_name[name], v)
            )
            yield from _twice(values, here)
    missing = [name for name in study.by_name if name not in grid]
    if missing:
        yield Problem(where, f"has no values for {listing(missing)}", "a list of values for every parameter")


def _unknown(name: str, where: str, study: StudyContext) -> Iterator[Problem]:
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


def count_values(space: SearchSpace) -> int | None:
    """The combinations of a space without endless ranges, conditions followed; None where there are too many."""
    total = 1
    for parameter in space.parameters:
        total *= len(stored_values(parameter))
        if total > MOST_POINTS:
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
        return list(range(stored.low, stored.high + 1, stored.step))[: MOST_POINTS + 1]
    assert isinstance(stored, FloatDistribution)
    steps = round((stored.high - stored.low) / stored.step) if stored.step else 0
    return [stored.low + position * (stored.step or 0) for position in range(min(steps, MOST_POINTS) + 1)]


def constraint_problems(study: StudyContext) -> Iterator[Problem]:
    """Constraints that stand twice, and parameters in them that have no number in every trial."""
    texts = [constraint.text for constraint in study.constraints]
    for index, constraint in enumerate(study.constraints):
        where = key_path("optuna", "constraints", index)
        if constraint.text in texts[:index]:
            yield Problem(where, f"{show(constraint.text)} is there before", "each constraint once")
        for name in constraint.names:
            parameter = study.by_name.get(name)
            if parameter is not None and name not in study.metric:
                yield from _parameter_problems(parameter, where, study)


def _parameter_problems(parameter: Parameter, where: str, study: StudyContext) -> Iterator[Problem]:
    legal = "metrics, and parameters that are a number in every trial"
    if not study.in_every_trial(parameter) and not isinstance(parameter.otherwise, int | float):
        yield Problem(where, f"{parameter.name} is not searched in every trial", legal)
    elif is_categorical(parameter):
        values = map(parameter.codec.decode, stored_values(parameter))
        word = next((value for value in values if not isinstance(value, int | float)), None)
        if word is not None:
            yield Problem(where, f"{parameter.name} can be {show(word)}, which is not a number", legal)


Rule = Callable[[Mapping[str, Any], str, StudyContext], Iterator[Problem]]
_SEVERAL_METRICS = "one metric; for several, TPESampler, NSGAIISampler, NSGAIIISampler or GPSampler"
_CONSTRAINED = "TPESampler, GPSampler, NSGAIISampler or NSGAIIISampler"


def combination_problems(kind: str, entry: Mapping[str, Any], where: str, study: StudyContext) -> Iterator[Problem]:
    """What a checked strategy cannot do in this study, and what those inside it cannot."""
    cls = class_named(kind, entry["type"])
    for known, rule in _RULES:
        if issubclass(cls, known):
            yield from rule(entry, where, study)
    for key, parameter in options(cls).items():
        nested = nested_kind(parameter)
        if nested in ("sampler", "pruner") and entry.get(key) is not None:
            yield from combination_problems(nested, as_entry(entry[key]), key_path(where, key), study)


def _cma_es(entry: Mapping[str, Any], where: str, study: StudyContext) -> Iterator[Problem]:
    here, name = key_path(where, "type"), entry["type"]
    if len(study.metric) > 1:
        yield Problem(here, f"{name} cannot optimize {len(study.metric)} metrics", _SEVERAL_METRICS)
    if study.constraints:
        yield Problem(here, f"{name} does not know constraints", _CONSTRAINED)
    popsize = entry.get("popsize")
    if popsize is not None and popsize < 2:
        yield Problem(key_path(where, "popsize"), f"{popsize} is no population", "2 or more")
    if study.space.parameters and not study.ranges:
        found = f"{name} searches ranges of numbers, and every parameter is categorical"
        yield Problem(here, found, "TPESampler, or GridSampler; `ordinal` makes a range of values in order")
    elif study.space.parameters and not any(map(study.in_every_trial, study.ranges)):
        found = f"{name} searches what every trial has, and every range of numbers is conditional"
        yield Problem(here, found, "TPESampler with group: true")
    yield from value_problems(entry.get("x0"), key_path(where, "x0"), study)
    yield from _start(entry, where, study)


def _start(entry: Mapping[str, Any], where: str, study: StudyContext) -> Iterator[Problem]:
    """The first point of CMA-ES must have a value for every range."""
    given = entry.get("x0")
    missing = [p.name for p in study.ranges if given is not None and p.name not in given]
    if missing:
        yield Problem(key_path(where, "x0"), f"has no value for {listing(missing)}", "a value for every range")


def _gp(entry: Mapping[str, Any], where: str, study: StudyContext) -> Iterator[Problem]:
    parameters = study.space.parameters
    if parameters and not any(study.in_every_trial(p) and not p.distribution.single() for p in parameters):
        found = f"{entry['type']} searches what every trial has, and every parameter is conditional"
        yield Problem(key_path(where, "type"), found, "TPESampler with group: true")


def _brute_force(entry: Mapping[str, Any], where: str, study: StudyContext) -> Iterator[Problem]:
    endless = [parameter.name for parameter in study.space.parameters if is_endless(parameter)]
    if endless:
        found = f"{entry['type']} tries every value, and {listing(endless)} has no step"
        yield Problem(key_path(where, "type"), found, "`step` in the settings of each float")
        return
    yield from _budget(count_values(study.space), study, "the search space")


def _grid(entry: Mapping[str, Any], where: str, study: StudyContext) -> Iterator[Problem]:
    problems = list(grid_sampler_problems(entry["search_space"], key_path(where, "search_space"), study))
    yield from problems
    if not problems:
        points = 1
        for values in entry["search_space"].values():
            points *= len(values)
        yield from _budget(points, study, "the grid")


def _budget(points: int | None, study: StudyContext, what: str) -> Iterator[Problem]:
    if points is not None and study.space.parameters and study.n_trials > points:
        found = f"{study.n_trials} is more than the {points} combinations of {what}: the others would repeat them"
        yield Problem("optuna: n_trials", found, f"up to {points}")


def _partial_fixed(entry: Mapping[str, Any], where: str, study: StudyContext) -> Iterator[Problem]:
    yield from value_problems(entry["fixed_params"], key_path(where, "fixed_params"), study)


def _nsga_iii(entry: Mapping[str, Any], where: str, study: StudyContext) -> Iterator[Problem]:
    points, metrics = entry.get("reference_points"), len(study.metric)
    rows = points if isinstance(points, list) else []
    if any(not isinstance(row, list) or len(row) != metrics for row in rows) or points == []:
        found = f"{show(points)} does not fit {metrics} metrics"
        yield Problem(key_path(where, "reference_points"), found, f"a list of lists of {metrics} numbers")


def _hyperband(entry: Mapping[str, Any], where: str, study: StudyContext) -> Iterator[Problem]:
    smallest, largest = entry.get("min_resource", 1), entry.get("max_resource", "auto")
    factor = entry.get("reduction_factor", 3)
    if smallest < 1:
        yield Problem(key_path(where, "min_resource"), f"{show(smallest)} is less than one step", "1 or more")
    elif isinstance(largest, int) and largest < smallest:
        found = f"{largest} is less than min_resource, {smallest}"
        yield Problem(key_path(where, "max_resource"), found, f"{smallest} or more")
    if factor < 2:
        yield Problem(key_path(where, "reduction_factor"), f"{show(factor)} reduces nothing", "2 or more")


_RULES: tuple[tuple[type, Rule], ...] = (
    (CmaEsSampler, _cma_es),
    (GPSampler, _gp),
    (BruteForceSampler, _brute_force),
    (GridSampler, _grid),
    (PartialFixedSampler, _partial_fixed),
    (NSGAIIISampler, _nsga_iii),
    (HyperbandPruner, _hyperband),
)
