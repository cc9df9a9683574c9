"""The search space: the parameters that both YAML files declare, what a trial suggests for them, and where the values
go in the model config.

A SearchSpace is read once, with the configuration, and is part of it (`config.space`). It is plain data that can be
pickled; optuna is imported only where one of its distributions is asked for. Parameters may depend on others: a value
times another's, or a parameter that is searched only in some trials. A space with a grid's types whose every parameter
has finitely many values is a full grid: each combination runs once.
"""

from __future__ import annotations

import copy
import json
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import Enum
from functools import cached_property
from graphlib import TopologicalSorter
from typing import TYPE_CHECKING, Any

from aimlhpo.errors import Problem, did_you_mean, key_path, listing, show
from aimlhpo.space.distributions import Codec, Encoding, Suggester
from aimlhpo.space.model_paths import SEARCH_MARK, exists, lookup, remove, search_objects, substitute
from aimlhpo.space.parameter_types import PARAMETER_TYPES, ParameterType, settings_problems

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution

KINDS = {"multiply": ("on",), "optimize_iff": ("on", "conditions", "otherwise")}
TESTS: dict[str, Callable[[Any, Any], Any]] = {
    "equal": lambda value, other: value == other,
    "not_equal": lambda value, other: value != other,
    "in": lambda value, other: value in other,
    "less": lambda value, other: value < other,
    "greater": lambda value, other: value > other,
    "less_or_equal": lambda value, other: value <= other,
    "greater_or_equal": lambda value, other: value >= other,
}
REFUSED_TYPE = "(refused)"
"""The type of an entry whose own type or settings are missing or have been refused: it is told elsewhere."""
Point = dict[str, Any]
"""A combination of a grid, from study name to value."""


# --- dependencies between parameters ---


class Absent(Enum):
    """Says that a parameter is left out: None is a value like others."""

    NOTHING = "nothing"


NOTHING = Absent.NOTHING


@dataclass(frozen=True)
class Condition:
    """One comparison with the other parameter's value."""

    type: str
    compare_value: Any

    def holds(self, value: Any) -> bool:
        """Whether it holds; values that cannot be compared do not."""
        try:
            return bool(TESTS[self.type](value, self.compare_value))
        except TypeError:
            return False


@dataclass(frozen=True)
class Dependency:
    """What one parameter has to do with another: `on` names it as the file does.

    Once resolved, `name` is the other's name in the study; or it is None, and `fixed` is the value that the model
    config has there. Where `on` names neither, both are left open.
    """

    type: str
    on: str
    conditions: tuple[Condition, ...] = ()
    otherwise: Any = NOTHING
    name: str | None = None
    fixed: Any = NOTHING

    @property
    def resolved(self) -> bool:
        """Whether `on` names a parameter or a value of the model config."""
        return self.name is not None or self.fixed is not NOTHING

    def holds(self, value: Any) -> bool:
        """Whether the parameter is searched where the other has this value."""
        return all(condition.holds(value) for condition in self.conditions)

    def value(self, values: Mapping[str, Any]) -> Any:
        """The other's value in a trial, NOTHING where it is left out."""
        return self.fixed if self.name is None else values.get(self.name, NOTHING)

    def resolve(self, names: Mapping[str, str], model: Mapping[str, Any]) -> Dependency:
        """The same with what `on` means; `names` maps the keys of parameters to their names in the study.

        Dots and colons are the same.
        """
        for spelled in (self.on, self.on.replace(".", ":"), self.on.replace(".", ":").removeprefix("model:")):
            if spelled in names:
                return replace(self, name=names[spelled])
            if spelled in names.values():
                return replace(self, name=spelled)
            if exists(model, spelled):
                return replace(self, fixed=lookup(model, spelled))
        return self


def read_dependencies(written: Any, where: str) -> tuple[tuple[Dependency, ...], list[Problem]]:
    """The dependencies of one parameter, and what is wrong with their form; `where` is their key path.

    They may be one, a list of several, or named by their kinds: `{multiply: {on: x}}`. One with a problem is left out.
    """
    if isinstance(written, Mapping) and written and set(written) <= set(KINDS):
        entries = [{"type": kind, **entry} if isinstance(entry, Mapping) else entry for kind, entry in written.items()]
    else:
        entries = [] if written is None else written if isinstance(written, list) else [written]
    dependencies: list[Dependency] = []
    problems: list[Problem] = []
    for entry in entries:
        found = list(_form_problems(entry, where))
        problems += found
        if not found:
            conditions = tuple(Condition(c["type"], c["compare_value"]) for c in entry.get("conditions", ()))
            dependencies.append(Dependency(entry["type"], entry["on"], conditions, entry.get("otherwise", NOTHING)))
    return tuple(dependencies), problems


def _form_problems(entry: Any, where: str) -> Iterator[Problem]:
    kind = entry.get("type") if isinstance(entry, Mapping) else None
    if not isinstance(entry, Mapping) or not isinstance(kind, str) or kind not in KINDS:
        found = f"{show(kind if isinstance(entry, Mapping) else entry)} is not a kind of dependency"
        yield Problem(key_path(where, "type"), found, listing(KINDS), did_you_mean(kind, KINDS))
        return
    for key in entry:
        if key not in ("type", *KINDS[kind]):
            near = did_you_mean(key, KINDS[kind])
            yield Problem(key_path(where, key), "unknown key", listing(("type", *KINDS[kind])), near)
    if not isinstance(entry.get("on"), str):
        yield Problem(key_path(where, "on"), f"{show(entry.get('on'))} is not a path", "a parameter or a model path")
    if kind != "optimize_iff":
        return
    conditions = entry.get("conditions")
    if not isinstance(conditions, list) or not conditions:
        legal = "a list of {type: ..., compare_value: ...}"
        yield Problem(key_path(where, "conditions"), f"{show(conditions)} is not a list", legal)
        return
    for index, condition in enumerate(conditions):
        here = key_path(where, "conditions", index)
        if not isinstance(condition, Mapping) or set(condition) != {"type", "compare_value"}:
            yield Problem(here, f"{show(condition)} is not a condition", "{type: ..., compare_value: ...}")
        elif not isinstance(condition["type"], str) or condition["type"] not in TESTS:
            near = did_you_mean(condition["type"], TESTS)
            yield Problem(key_path(here, "type"), f"{show(condition['type'])} is not known", listing(TESTS), near)
        elif condition["type"] == "in" and not isinstance(condition["compare_value"], list):
            value = show(condition["compare_value"])
            yield Problem(key_path(here, "compare_value"), f"{value} is not a list", "a list of values")


# --- the parameters and the whole ---


@dataclass(frozen=True)
class Parameter:
    """One searched parameter.

    `key` is the key in the YAML, `name` the name in the study; `path` says where the value stands in the model
    config, and is None where custom_updates or the objective reads it. `where` is the key path of the entry in its
    file, and `words` what the keys for type and settings are called there.

    `problems` is what is wrong with the entry by itself; a checked configuration has none.
    """

    key: str
    name: str
    type: str
    settings: Mapping[str, Any]
    where: tuple[str, ...]
    words: tuple[str, str] = ("type", "settings")
    path: tuple[str, ...] | None = None
    substitute: bool = True
    pass_as: str | None = None
    dependencies: tuple[Dependency, ...] = ()
    sound: bool = True
    """Whether type and settings are right, so that the parameter's values can be asked for."""
    problems: tuple[Problem, ...] = ()

    @property
    def definition(self) -> ParameterType:
        """What the type means."""
        return PARAMETER_TYPES[self.type]

    @property
    def of_grid(self) -> bool:
        """Whether the type is one that makes a study a full grid."""
        return self.type in PARAMETER_TYPES and self.definition.of_grid

    @cached_property
    def _encoding(self) -> Encoding:
        return self.definition.encoding(self.settings)

    @cached_property
    def distribution(self) -> BaseDistribution:
        """What Optuna searches."""
        return self._encoding[0].distribution()

    @property
    def codec(self) -> Codec:
        """The way between stored values and the user's."""
        return self._encoding[1]

    @property
    def signature(self) -> str:
        """The distribution as JSON, with what else decides on the value that a stored number means."""
        from optuna.distributions import distribution_to_json

        text = distribution_to_json(self.distribution)
        meaning = self.codec.meaning() | ({"count": self.settings["count"]} if self.type == "random" else {})
        if not meaning:
            return text
        data = json.loads(text)
        return json.dumps({**data, "attributes": {**data["attributes"], **meaning}})

    @property
    def conditional(self) -> bool:
        """Whether some trials are without it."""
        return bool(self.dependencies)

    @property
    def otherwise(self) -> Any:
        """What stands in its place where it is not searched, or NOTHING."""
        given = (dependency.otherwise for dependency in self.dependencies)
        return next((value for value in given if value is not NOTHING), NOTHING)

    def active(self, values: Mapping[str, Any]) -> bool:
        """Whether it is searched, given the values of those that it depends on."""
        others = [(dependency, dependency.value(values)) for dependency in self.dependencies]
        return all(value is not NOTHING and dependency.holds(value) for dependency, value in others)

    def suggest(self, trial: Suggester, values: Mapping[str, Any]) -> Any:
        """The user's value in a trial, chosen by the study's sampler; `values` are those of the other parameters."""
        return self.finish(self._encoding[0].suggest(trial, self.name), values)

    def finish(self, stored: Any, values: Mapping[str, Any]) -> Any:
        """The user's value for what the storage holds, multiplied by what it depends on."""
        return self.multiply(self.codec.decode(stored), values)

    def multiply(self, value: Any, values: Mapping[str, Any]) -> Any:
        """The value times those that it is to be multiplied by."""
        for dependency in self.dependencies:
            factor = dependency.value(values)
            if dependency.type == "multiply" and factor is not NOTHING:
                value = value * factor
        return value


@dataclass(frozen=True)
class SearchSpace:
    """All parameters, in the order of the files: the hyperparameter YAML's first, then those inside the model YAML.

    `problems` is what is wrong with the form of those inside the model YAML; a checked configuration has none.
    """

    parameters: tuple[Parameter, ...] = ()
    problems: tuple[Problem, ...] = ()

    @classmethod
    def read(cls, declared: Mapping[str, Any], model: Mapping[str, Any]) -> SearchSpace:
        """The search space of both files. What is wrong with it becomes `problems`.

        Args:
            declared: the entries of `optuna: parameters`, as `ParameterSection` of the configuration.
            model: the model config.
        """
        found = []
        for key, declaration in declared.items():
            above = ("optuna", "parameters", key)
            parameter = _parameter(key, declaration.type, declaration.settings, declaration.dependency, above)
            found.append(replace(parameter, substitute=declaration.substitute, pass_as=declaration.pass_as))
        objects, problems = search_objects(model)
        for path, entry in objects.items():
            where, words = ("model", *path, SEARCH_MARK), ("suggest", "params")
            key, settings = ":".join(path), entry["params"]
            found.append(_parameter(key, entry["suggest"], settings, entry.get("dependency"), where, words))
        names = {parameter.key: parameter.name for parameter in found}
        for index, parameter in enumerate(found):
            in_model = parameter.substitute and exists(model, parameter.key)
            dependencies = tuple(dependency.resolve(names, model) for dependency in parameter.dependencies)
            place = tuple(parameter.key.split(":")) if in_model else None
            found[index] = replace(parameter, path=place, dependencies=dependencies)
        return cls(tuple(found), tuple(problems))

    @cached_property
    def by_key(self) -> dict[str, Parameter]:
        """All parameters by their keys."""
        return {parameter.key: parameter for parameter in self.parameters}

    @cached_property
    def by_name(self) -> dict[str, Parameter]:
        """All parameters by their names in the study."""
        return {parameter.name: parameter for parameter in self.parameters}

    @cached_property
    def needs(self) -> dict[str, list[str]]:
        """By the name of each parameter, the names of those that it depends on."""
        return {p.name: [d.name for d in p.dependencies if d.name is not None] for p in self.parameters}

    @cached_property
    def in_order(self) -> Sequence[Parameter]:
        """All parameters, each after those that it depends on. Raises graphlib.CycleError."""
        if not any(self.needs.values()):
            return self.parameters
        return tuple(self.by_name[name] for name in TopologicalSorter(self.needs).static_order())

    @property
    def distributions(self) -> dict[str, BaseDistribution]:
        """By study name."""
        return {parameter.name: parameter.distribution for parameter in self.parameters}

    def suggest(self, trial: Suggester) -> dict[str, Any]:
        """Values by study name, each active parameter suggested on the trial; in the declared order.

        Inactive parameters are left out, or have the value of their `otherwise`.
        """
        values: dict[str, Any] = {}
        for parameter in self.in_order:
            if parameter.active(values):
                values[parameter.name] = parameter.suggest(trial, values)
            elif parameter.otherwise is not NOTHING:
                values[parameter.name] = copy.deepcopy(parameter.otherwise)
        return {parameter.name: values[parameter.name] for parameter in self.parameters if parameter.name in values}

    def values(self, params: Mapping[str, Any]) -> dict[str, Any]:
        """The user's values for what a trial's `params` hold; names that are not declared pass as they are."""
        known = {p.name: p.otherwise for p in self.parameters if p.name not in params and p.otherwise is not NOTHING}
        for parameter in self.in_order:
            if parameter.name in params:
                known[parameter.name] = parameter.finish(params[parameter.name], known)
        return {name: known.get(name, stored) for name, stored in params.items()}

    def encode(self, values: Mapping[str, Any]) -> dict[str, Any]:
        """What the storage holds for the user's values, by study name; what Optuna's `enqueue_trial` takes.

        The values are the suggested ones, before any multiplication.
        """
        known = self.by_name
        return {name: known[name].codec.encode(value) if name in known else value for name, value in values.items()}

    def assign(self, conf: Mapping[str, Any], values: Mapping[str, Any]) -> dict[str, Any]:
        """A copy of `conf` with every value at its parameter's path, and without the parameters that are inactive.

        Raises ModelPathError.
        """
        in_model = [parameter for parameter in self.parameters if parameter.path is not None]
        placed = {p.key: values.get(p.name, p.otherwise) for p in in_model}
        gone = [p.key for p in in_model if p.conditional and placed[p.key] is NOTHING]
        return remove(substitute(conf, {key: value for key, value in placed.items() if value is not NOTHING}), gone)

    def fingerprint(self) -> dict[str, str]:
        """Study name to the distribution as JSON: what must not change when a study goes on."""
        return {parameter.name: parameter.signature for parameter in self.parameters}


def _parameter(
    key: str,
    kind: Any,
    settings: Mapping[str, Any],
    dependency: Any,
    where: tuple[str, ...],
    words: tuple[str, str] = ("type", "settings"),
) -> Parameter:
    """One parameter, with what is wrong with its entry; what its dependencies name is still to be resolved."""
    problems = list(settings_problems(where, kind, settings, words)) if kind != REFUSED_TYPE else []
    dependencies, in_dependencies = read_dependencies(dependency, key_path(*where, "dependency"))
    return Parameter(
        key=key,
        name=str(settings.get("name", key)),
        type=str(kind),
        settings=settings,
        where=where,
        words=words,
        dependencies=dependencies,
        sound=kind != REFUSED_TYPE and not problems,
        problems=(*problems, *in_dependencies),
    )


# --- the full grid ---


@dataclass(frozen=True)
class Grid:
    """The parameters of a grid, each after those it depends on.

    Those that depend on others take part in those combinations alone in which they are searched.
    """

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
