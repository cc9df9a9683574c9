"""The search space: the parameters that both YAML files declare, what a trial suggests for them, and where the values
go in the model config.

A SearchSpace is read once, with the configuration, and is part of it (`config.space`). It is plain data that can be
pickled; optuna is imported only where one of its distributions is asked for.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from graphlib import TopologicalSorter
from typing import TYPE_CHECKING, Any

from aimlhpo.errors import Problem, key_path
from aimlhpo.space.dependencies import NOTHING, Dependency, read_dependencies
from aimlhpo.space.distributions import Codec, Encoding, Suggester
from aimlhpo.space.model_paths import SEARCH_MARK, exists, remove, search_objects, substitute
from aimlhpo.space.parameter_types import PARAMETER_TYPES, ParameterType, settings_problems

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution


REFUSED_TYPE = "(refused)"
"""The type of an entry whose own type or settings are missing or have been refused: it is told elsewhere."""


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
