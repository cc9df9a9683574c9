"""The search space: parameters of both YAML files, what a trial suggests for them, and where the values go."""

from __future__ import annotations

import copy
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
    distribution_to_json,
)

from aimlhpo.space.dependencies import NOTHING, Dependency, dependency_order, parse, resolve
from aimlhpo.space.distributions import Codec, distribution
from aimlhpo.space.model_paths import exists, remove, substitute


class Suggester(Protocol):
    """The part of Optuna's trial that is needed here."""

    def suggest_float(
        self, name: str, low: float, high: float, *, step: float | None = None, log: bool = False
    ) -> float: ...

    def suggest_int(self, name: str, low: int, high: int, *, step: int = 1, log: bool = False) -> int: ...

    def suggest_categorical(self, name: str, choices: Any) -> Any: ...


class DeclaredParameter(Protocol):
    """One entry of `optuna: parameters`, with its values checked."""

    @property
    def name(self) -> str: ...

    @property
    def type(self) -> str: ...

    @property
    def settings(self) -> dict[str, Any]: ...

    @property
    def substitute(self) -> bool: ...

    @property
    def dependency(self) -> Any: ...


@dataclass(frozen=True)
class Link:
    """A dependency with what it names: the study name of another parameter, or a fixed value of the model config."""

    dependency: Dependency
    name: str | None
    fixed: Any

    def value(self, values: Mapping[str, Any]) -> Any:
        """The other's value in a trial, NOTHING where it is left out."""
        return self.fixed if self.name is None else values.get(self.name, NOTHING)


@dataclass(frozen=True)
class Parameter:
    """One searched parameter.

    `key` is the key in the YAML, `name` the name in the study; `path` says where the value stands in the model
    config, and is None where custom_updates or the objective reads it.
    """

    key: str
    name: str
    type: str
    settings: Mapping[str, Any]
    distribution: BaseDistribution
    path: tuple[str, ...] | None
    codec: Codec
    links: tuple[Link, ...] = ()

    @property
    def conditional(self) -> bool:
        """Whether some trials are without it."""
        return bool(self.links)

    @property
    def signature(self) -> str:
        """The distribution as JSON, with what else decides on the value that a stored number means."""
        text = distribution_to_json(self.distribution)
        meant = self.codec.meaning() | ({"count": self.settings["count"]} if self.type == "random" else {})
        if not meant:
            return text
        data = json.loads(text)
        return json.dumps({**data, "attributes": {**data["attributes"], **meant}})

    @property
    def otherwise(self) -> Any:
        """What stands in its place where it is not searched, or NOTHING."""
        given = (link.dependency.otherwise for link in self.links)
        return next((value for value in given if value is not NOTHING), NOTHING)

    def active(self, values: Mapping[str, Any]) -> bool:
        """Whether it is searched, given the values of those that it depends on."""
        others = [(link.dependency, link.value(values)) for link in self.links]
        return all(value is not NOTHING and dependency.holds(value) for dependency, value in others)

    def finish(self, stored: Any, values: Mapping[str, Any]) -> Any:
        """The user's value for what the storage holds, multiplied by what it depends on."""
        value = self.codec.decode(stored)
        for link in self.links:
            factor = link.value(values)
            if link.dependency.type == "multiply" and factor is not NOTHING:
                value = value * factor
        return value


class SearchSpace:
    """All parameters, in the order of the YAML file."""

    def __init__(self, parameters: tuple[Parameter, ...]) -> None:
        self.parameters = parameters
        self._by_name = {parameter.name: parameter for parameter in parameters}
        needs = {p.name: [link.name for link in p.links if link.name is not None] for p in parameters}
        self._order = (
            [self._by_name[name] for name in dependency_order(needs)] if any(needs.values()) else list(parameters)
        )

    @classmethod
    def from_config(cls, config: Any) -> SearchSpace:
        """From a checked configuration."""
        sections = config.optuna.parameters
        names = {key: section.name for key, section in sections.items()}
        return cls(tuple(_parameter(key, section, names, config.model) for key, section in sections.items()))

    @property
    def in_order(self) -> Sequence[Parameter]:
        """All parameters, each after those that it depends on."""
        return tuple(self._order)

    @property
    def distributions(self) -> dict[str, BaseDistribution]:
        """By study name."""
        return {parameter.name: parameter.distribution for parameter in self.parameters}

    def suggest(self, trial: Suggester) -> dict[str, Any]:
        """Values by study name, each active parameter suggested on the trial; in the declared order.

        Inactive parameters are left out, or have the value of their `otherwise`.
        """
        values: dict[str, Any] = {}
        for parameter in self._order:
            if parameter.active(values):
                stored = _suggest(trial, parameter.name, parameter.distribution)
                values[parameter.name] = parameter.finish(stored, values)
            elif parameter.otherwise is not NOTHING:
                values[parameter.name] = copy.deepcopy(parameter.otherwise)
        return {parameter.name: values[parameter.name] for parameter in self.parameters if parameter.name in values}

    def values(self, params: Mapping[str, Any]) -> dict[str, Any]:
        """The user's values for what a trial's `params` hold; names that are not declared pass as they are."""
        known = {p.name: p.otherwise for p in self.parameters if p.name not in params and p.otherwise is not NOTHING}
        for parameter in self._order:
            if parameter.name in params:
                known[parameter.name] = parameter.finish(params[parameter.name], known)
        return {name: known.get(name, stored) for name, stored in params.items()}

    def encode(self, values: Mapping[str, Any]) -> dict[str, Any]:
        """What the storage holds for the user's values, by study name; what Optuna's `enqueue_trial` takes.

        The values are the suggested ones, before any multiplication.
        """
        return {
            name: self._by_name[name].codec.encode(value) if name in self._by_name else value
            for name, value in values.items()
        }

    def assign(self, conf: Mapping[str, Any], values: Mapping[str, Any]) -> dict[str, Any]:
        """A copy of `conf` with every value at its parameter's path, and without the parameters that are inactive.

        Raises ModelPathError.
        """
        placed = {p.key: self._place(p, values) for p in self.parameters if p.path is not None}
        gone = [key for key, value in placed.items() if value is NOTHING and key in self._conditional_keys]
        changed = substitute(conf, {key: value for key, value in placed.items() if value is not NOTHING})
        return remove(changed, gone)

    def _place(self, parameter: Parameter, values: Mapping[str, Any]) -> Any:
        if parameter.name in values:
            return values[parameter.name]
        return parameter.otherwise

    @property
    def _conditional_keys(self) -> set[str]:
        return {parameter.key for parameter in self.parameters if parameter.conditional}

    def fingerprint(self) -> dict[str, str]:
        """Study name to the distribution as JSON: what must not change when a study goes on."""
        return {parameter.name: parameter.signature for parameter in self.parameters}


def _parameter(key: str, section: DeclaredParameter, names: Mapping[str, str], model: Mapping[str, Any]) -> Parameter:
    stored, codec = distribution(section.type, section.settings)
    path = tuple(key.split(":")) if section.substitute and exists(model, key) else None
    links = tuple(_link(dependency, names, model) for dependency in parse(section.dependency))
    return Parameter(key, section.name, section.type, section.settings, stored, path, codec, links)


def _link(dependency: Dependency, names: Mapping[str, str], model: Mapping[str, Any]) -> Link:
    key, fixed = resolve(dependency.on, names, model)
    return Link(dependency, None if key is None else names[key], fixed)


def _suggest(trial: Suggester, name: str, stored: BaseDistribution) -> Any:
    if isinstance(stored, FloatDistribution):
        return trial.suggest_float(name, stored.low, stored.high, step=stored.step, log=stored.log)
    if isinstance(stored, IntDistribution):
        return trial.suggest_int(name, stored.low, stored.high, step=stored.step, log=stored.log)
    choices = stored.choices if isinstance(stored, CategoricalDistribution) else ()
    return trial.suggest_categorical(name, choices)
