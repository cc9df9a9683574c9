"""`enqueue_default`: the trial that has the model YAML's own values."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from aimlhpo.config.dependencies import NOTHING
from aimlhpo.config.model_space import MARK
from aimlhpo.config.parameter_checks import outside
from aimlhpo.errors import ConfigError, Problem
from aimlhpo.model_config import exists, lookup
from aimlhpo.space import Parameter, SearchSpace
from aimlhpo.suggestions import key_path, show

if TYPE_CHECKING:
    from aimlhpo.config import Config

_WAYS = "a value from the search space in the model YAML; or enqueue: with all values, in place of enqueue_default"


def default_trial(config: Config) -> dict[str, Any]:
    """The model's values of all parameters that are active with them, by study name, as `enqueue` would have them.

    Raises ConfigError with a problem for each parameter that has no such value.
    """
    values: dict[str, Any] = {}
    suggested: dict[str, Any] = {}
    problems: list[Problem] = []
    for parameter in SearchSpace.from_config(config).in_order:
        if not parameter.active(values):
            values.update({parameter.name: parameter.otherwise} if parameter.otherwise is not NOTHING else {})
            continue
        values[parameter.name] = value = _given(parameter, config.model)
        suggested[parameter.name] = _undone(parameter, value, values)
        problems += _problems(parameter, value, suggested[parameter.name])
    if problems:
        raise ConfigError(problems)
    return suggested


def _problems(parameter: Parameter, value: Any, suggested: Any) -> Iterator[Problem]:
    where = key_path("optuna", "enqueue_default", parameter.key)
    if value is NOTHING:
        yield Problem(where, "has no value in the model YAML", _WAYS)
        return
    legal = outside(parameter.type, parameter.settings, suggested)
    if legal is not None:
        yield Problem(where, f"{show(value)}, the model's own value, is not in the search space ({legal})", _WAYS)


def _given(parameter: Parameter, model: Mapping[str, Any]) -> Any:
    value = lookup(model, parameter.key) if exists(model, parameter.key) else NOTHING
    return NOTHING if isinstance(value, Mapping) and MARK in value else value


def _undone(parameter: Parameter, value: Any, values: Mapping[str, Any]) -> Any:
    """The value before it is multiplied by what it depends on."""
    for link in parameter.links:
        factor = link.value(values)
        if link.dependency.type == "multiply" and factor not in (NOTHING, 0) and isinstance(value, int | float):
            value = value / factor
            value = int(value) if float(value).is_integer() else value
    return value
