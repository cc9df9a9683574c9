"""The search space: from YAML parameters to Optuna's distributions, and from suggestions to the model config."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
    distribution_to_json,
)

from aimlhpo.config.domains import duplicate_names, parameter_problems
from aimlhpo.config.values import as_number
from aimlhpo.errors import ConfigError
from aimlhpo.model_config import exists, substitute

if TYPE_CHECKING:
    from aimlhpo.config import Config, ParameterSection

PARAMETERS = ("optuna", "parameters")


class Suggester(Protocol):
    """The part of Optuna's trial that is needed here."""

    def suggest_float(
        self, name: str, low: float, high: float, *, step: float | None = None, log: bool = False
    ) -> float: ...

    def suggest_int(self, name: str, low: int, high: int, *, step: int = 1, log: bool = False) -> int: ...

    def suggest_categorical(self, name: str, choices: Any) -> Any: ...


@dataclass(frozen=True)
class Parameter:
    """One searched parameter."""

    key: str
    name: str
    type: str
    settings: Mapping[str, Any]
    distribution: BaseDistribution
    path: tuple[str, ...] | None
    """Where it stands in the model config; None where custom_updates or the objective reads it."""
    codes: Mapping[Any, Any] = field(default_factory=dict)
    """What the storage holds, to the choice, for choices that a storage cannot hold."""

    def decode(self, stored: Any) -> Any:
        """The user's value for what the storage holds."""
        return self.codes.get(stored, stored) if self.codes else stored

    def encode(self, value: Any) -> Any:
        """What the storage holds for the user's value."""
        return next((code for code, choice in self.codes.items() if choice == value), value)

    def suggest(self, trial: Suggester) -> Any:
        """The user's value in this trial."""
        return self.decode(_suggest(trial, self.name, self.distribution))


class SearchSpace:
    """All parameters, in the order of the YAML file."""

    def __init__(self, parameters: tuple[Parameter, ...]) -> None:
        self.parameters = parameters
        self._by_name = {parameter.name: parameter for parameter in parameters}

    @classmethod
    def from_config(cls, config: Config) -> SearchSpace:
        """Raises ConfigError for parameters that make no sense."""
        sections = config.optuna.parameters
        problems = duplicate_names(PARAMETERS, {key: section.name for key, section in sections.items()})
        for key, section in sections.items():
            problems += parameter_problems((*PARAMETERS, key), section.type, section.settings)
        if problems:
            raise ConfigError(problems)
        return cls(tuple(_parameter(key, section, config.model) for key, section in sections.items()))

    @property
    def distributions(self) -> dict[str, BaseDistribution]:
        """By study name."""
        return {parameter.name: parameter.distribution for parameter in self.parameters}

    def suggest(self, trial: Suggester) -> dict[str, Any]:
        """Values by study name, each active parameter suggested on the trial, in the declared order."""
        return {parameter.name: parameter.suggest(trial) for parameter in self.parameters}

    def values(self, params: Mapping[str, Any]) -> dict[str, Any]:
        """The user's values for what a trial's `params` hold; names that are not declared pass as they are."""
        return {
            name: self._by_name[name].decode(stored) if name in self._by_name else stored
            for name, stored in params.items()
        }

    def encode(self, values: Mapping[str, Any]) -> dict[str, Any]:
        """What the storage holds for the user's values, by study name."""
        return {
            name: self._by_name[name].encode(value) if name in self._by_name else value
            for name, value in values.items()
        }

    def assign(self, conf: Mapping[str, Any], values: Mapping[str, Any]) -> dict[str, Any]:
        """A copy of `conf` with every value at its parameter's path. Raises ModelPathError."""
        placed = {p.key: values[p.name] for p in self.parameters if p.path is not None and p.name in values}
        return substitute(conf, placed)

    def fingerprint(self) -> dict[str, str]:
        """Study name to the distribution as JSON: what must not change when a study goes on."""
        return {parameter.name: distribution_to_json(parameter.distribution) for parameter in self.parameters}


def _parameter(key: str, section: ParameterSection, model: Mapping[str, Any]) -> Parameter:
    distribution, codes = _distribution(section.type, section.settings)
    path = tuple(key.split(":")) if section.substitute and exists(model, key) else None
    return Parameter(key, section.name, section.type, section.settings, distribution, path, codes)


def _distribution(kind: str, settings: Mapping[str, Any]) -> tuple[BaseDistribution, dict[Any, Any]]:
    if kind == "categorical":
        return _categorical(settings["choices"])
    low, high = _number(settings["low"]), _number(settings["high"])
    step = as_number(settings.get("q" if kind == "discrete_uniform" else "step"))
    log = kind == "loguniform" or bool(settings.get("log", False))
    if kind == "int":
        return IntDistribution(int(low), int(high), log=log, step=int(step or 1)), {}
    return FloatDistribution(float(low), float(high), log=log, step=None if step is None else float(step)), {}


def _number(value: Any) -> float:
    number = as_number(value)
    return number if number is not None else float("nan")


def _categorical(choices: list[Any]) -> tuple[BaseDistribution, dict[Any, Any]]:
    """Choices that are lists or mappings are stored as JSON text: storages hold scalars only."""
    if all(choice is None or isinstance(choice, bool | int | float | str) for choice in choices):
        return CategoricalDistribution(choices), {}
    codes = {json.dumps(choice, sort_keys=True, default=str): choice for choice in choices}
    return CategoricalDistribution(list(codes)), codes


def _suggest(trial: Suggester, name: str, distribution: BaseDistribution) -> Any:
    if isinstance(distribution, FloatDistribution):
        low, high, step = distribution.low, distribution.high, distribution.step
        return trial.suggest_float(name, low, high, step=step, log=distribution.log)
    if isinstance(distribution, IntDistribution):
        return trial.suggest_int(
            name, distribution.low, distribution.high, step=distribution.step, log=distribution.log
        )
    assert isinstance(distribution, CategoricalDistribution)
    return trial.suggest_categorical(name, distribution.choices)
