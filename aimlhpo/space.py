"""The search space: parameters of the YAML, what a trial suggests for them, and where the values go."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
    distribution_to_json,
)

from aimlhpo.config.parameter_checks import duplicate_names, parameter_problems
from aimlhpo.distributions import Codec, distribution
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

    def suggest(self, trial: Suggester) -> Any:
        """The user's value in this trial."""
        return self.codec.decode(_suggest(trial, self.name, self.distribution))


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
            name: self._by_name[name].codec.decode(stored) if name in self._by_name else stored
            for name, stored in params.items()
        }

    def encode(self, values: Mapping[str, Any]) -> dict[str, Any]:
        """What the storage holds for the user's values, by study name; what Optuna's `enqueue_trial` takes."""
        return {
            name: self._by_name[name].codec.encode(value) if name in self._by_name else value
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
    stored, codec = distribution(section.type, section.settings)
    path = tuple(key.split(":")) if section.substitute and exists(model, key) else None
    return Parameter(key, section.name, section.type, section.settings, stored, path, codec)


def _suggest(trial: Suggester, name: str, stored: BaseDistribution) -> Any:
    if isinstance(stored, FloatDistribution):
        return trial.suggest_float(name, stored.low, stored.high, step=stored.step, log=stored.log)
    if isinstance(stored, IntDistribution):
        return trial.suggest_int(name, stored.low, stored.high, step=stored.step, log=stored.log)
    choices = stored.choices if isinstance(stored, CategoricalDistribution) else ()
    return trial.suggest_categorical(name, choices)
