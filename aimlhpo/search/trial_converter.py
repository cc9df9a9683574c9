"""`enqueue_default`: the trial that has the model YAML's own values.
A trial of another study as a trial of this one.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.trial import FrozenTrial, TrialState, create_trial

from aimlhpo.errors import ConfigError, Problem, key_path, show
from aimlhpo.space.dependencies import NOTHING
from aimlhpo.space.distributions import Texts
from aimlhpo.space.model_paths import SEARCH_MARK, exists, lookup
from aimlhpo.space.search_space import Parameter
from aimlhpo.storage.trials import IMPORTED, OPTUNA_CONSTRAINT

if TYPE_CHECKING:
    import optuna

    from aimlhpo.config.schema import Config

_WAYS = "a value from the search space in the model YAML; or enqueue: with all values, in place of enqueue_default"


def default_trial(config: Config) -> dict[str, Any]:
    """The model's values of all parameters that are active with them, by study name, as `enqueue` would have them.

    Raises ConfigError with a problem for each parameter that has no such value.
    """
    values: dict[str, Any] = {}
    suggested: dict[str, Any] = {}
    problems: list[Problem] = []
    for parameter in config.space.in_order:
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
    legal = parameter.definition.legal(parameter.settings, suggested)
    if legal is not None:
        yield Problem(where, f"{show(value)}, the model's own value, is not in the search space ({legal})", _WAYS)


def _given(parameter: Parameter, model: Mapping[str, Any]) -> Any:
    value = lookup(model, parameter.key) if exists(model, parameter.key) else NOTHING
    return NOTHING if isinstance(value, Mapping) and SEARCH_MARK in value else value


def _undone(parameter: Parameter, value: Any, values: Mapping[str, Any]) -> Any:
    """The value before it is multiplied by what it depends on."""
    for dependency in parameter.dependencies:
        factor = dependency.value(values)
        if dependency.type == "multiply" and factor not in (NOTHING, 0) and isinstance(value, int | float):
            value = value / factor
            value = int(value) if float(value).is_integer() else value
    return value


class IncompatibleTrial(Exception):
    """Why a trial cannot be taken over, in words that are the same for all trials of that kind."""


class TrialConverter:
    """Brings the trials of one study into the search space of another."""

    def __init__(self, source: optuna.Study, config: Config) -> None:
        self._space = config.space
        self._constraints = [OPTUNA_CONSTRAINT + text for text in config.optuna.constraints]
        self._metrics = len(config.optuna.metric)
        signature = source.user_attrs.get("aimlhpo", {}).get("fingerprint", {}).get("space")
        self._declared: Mapping[str, str] | None = signature

    def fit(self, trial: FrozenTrial, mark: Mapping[str, Any]) -> FrozenTrial:
        """The same result, with this study's distributions, and `mark` for where it is from. Raises Misfit."""
        if trial.state not in (TrialState.COMPLETE, TrialState.PRUNED):
            raise IncompatibleTrial("failed" if trial.state == TrialState.FAIL else "not finished")
        params, distributions = self._params(trial)
        fitted = create_trial(
            state=trial.state,
            values=trial.values,
            params=params,
            distributions=distributions,
            intermediate_values=trial.intermediate_values,
            system_attrs={IMPORTED: dict(mark), **self._kept_constraints(trial)},
        )
        fitted.datetime_start, fitted.datetime_complete = trial.datetime_start, trial.datetime_complete
        return fitted

    def _params(self, trial: FrozenTrial) -> tuple[dict[str, Any], dict[str, BaseDistribution]]:
        ours = self._space.distributions
        given = {name: self._stored(name, value) for name, value in trial.params.items() if name in ours}
        replay = ParameterReplay(given)
        self._space.suggest(replay)
        for name in trial.params.keys() - ours.keys():
            self._keep_undeclared(replay, trial, name)
        return replay.params, replay.distributions

    def _stored(self, name: str, stored: Any) -> Any:
        """What this study's storage would hold for a value of the other's."""
        value = _meant(stored, (self._declared or {}).get(name))
        codec = next(parameter.codec for parameter in self._space.parameters if parameter.name == name)
        try:
            return codec.encode(codec.decode(value) if isinstance(codec, Texts) else value)
        except ValueError:
            raise IncompatibleTrial(f"{name} is outside the search space") from None

    def _keep_undeclared(self, replay: ParameterReplay, trial: FrozenTrial, name: str) -> None:
        """What the objective itself suggests goes along; what only the other study searched cannot."""
        if self._declared is None or name in self._declared:
            raise IncompatibleTrial(f"{name} is not searched here")
        replay.params[name], replay.distributions[name] = trial.params[name], trial.distributions[name]

    def _kept_constraints(self, trial: FrozenTrial) -> dict[str, Any]:
        for key in self._constraints:
            if key not in trial.system_attrs and trial.state == TrialState.COMPLETE:
                raise IncompatibleTrial(f"no value for the constraint {key.removeprefix(OPTUNA_CONSTRAINT)}")
        return {key: trial.system_attrs[key] for key in self._constraints if key in trial.system_attrs}


class ParameterReplay:
    """Suggests the values of a finished trial. Raises Misfit for one that it does not have, or that is outside."""

    def __init__(self, values: Mapping[str, Any]) -> None:
        self._values = values
        self.params: dict[str, Any] = {}
        self.distributions: dict[str, BaseDistribution] = {}

    def suggest_float(
        self, name: str, low: float, high: float, *, step: float | None = None, log: bool = False
    ) -> float:
        return float(self._take(name, FloatDistribution(low, high, step=step, log=log)))

    def suggest_int(self, name: str, low: int, high: int, *, step: int = 1, log: bool = False) -> int:
        return int(self._take(name, IntDistribution(low, high, step=step, log=log)))

    def suggest_categorical(self, name: str, choices: Sequence[Any]) -> Any:
        return self._take(name, CategoricalDistribution(choices))

    def _take(self, name: str, distribution: BaseDistribution) -> Any:
        if name not in self._values:
            raise IncompatibleTrial(f"no value for {name}")
        value = self._values[name]
        if not _contains(distribution, value):
            raise IncompatibleTrial(f"{name} is outside the search space")
        self.params[name], self.distributions[name] = value, distribution
        return value


def _contains(distribution: BaseDistribution, value: Any) -> bool:
    if not isinstance(distribution, CategoricalDistribution):
        number = isinstance(value, int | float) and not isinstance(value, bool)
        whole = not isinstance(distribution, IntDistribution) or float(value) == int(value)
        return number and whole and distribution._contains(float(value))
    return any(type(value) is type(choice) and value == choice for choice in distribution.choices)


def _meant(stored: Any, signature: str | None) -> Any:
    """The user's value for what a study with that signature holds: a position in a list, or near one of its numbers."""
    known = json.loads(signature) if signature else {}
    values = known.get("attributes", {}).get("values")
    if values is None:
        return stored
    if known["name"] == "IntDistribution":
        return values[int(stored)]
    return min(values, key=lambda value: abs(math.log(value) - math.log(stored)))
