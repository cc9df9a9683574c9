"""A finished trial of another study as a trial of this one, for `warm_start_from`.

A trial can be imported when this study could have run it: every parameter that is active has a value that lies in the
search space. What counts is the user's value, not what the other study's storage made of it: an ordinal parameter may
have become an integer, a list of choices may have grown.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.trial import FrozenTrial, TrialState, create_trial

from aimlhpo.space.distributions import Texts
from aimlhpo.storage.study import STUDY_ATTR
from aimlhpo.storage.trials import IMPORTED, OPTUNA_CONSTRAINT

if TYPE_CHECKING:
    import optuna

    from aimlhpo.config.schema import Config


class IncompatibleTrial(Exception):
    """Why a trial cannot be imported, in a clause: `x is outside the search space`."""


class TrialConverter:
    """Makes trials of one study from those of another, `source`. The configuration is that of the new study."""

    def __init__(self, source: optuna.Study, config: Config) -> None:
        self._space = config.space
        self._codecs = {parameter.name: parameter.codec for parameter in self._space.parameters}
        self._constraints = [OPTUNA_CONSTRAINT + text for text in config.optuna.constraints]
        # The source's parameters by name, each with its distribution as JSON; None for a study of plain Optuna.
        self._declared: Mapping[str, str] | None = (
            source.user_attrs.get(STUDY_ATTR, {}).get("fingerprint", {}).get("space")
        )

    def convert(self, trial: FrozenTrial, mark: Mapping[str, Any]) -> FrozenTrial:
        """The trial as one of this study, with its values, reports and times; `mark` says where it is from.

        Raises IncompatibleTrial.
        """
        if trial.state not in (TrialState.COMPLETE, TrialState.PRUNED):
            raise IncompatibleTrial("failed" if trial.state == TrialState.FAIL else "not finished")
        replay = self._replay(trial)
        for key in self._constraints:
            if key not in trial.system_attrs and trial.state == TrialState.COMPLETE:
                raise IncompatibleTrial(f"no value for the constraint {key.removeprefix(OPTUNA_CONSTRAINT)}")
        constraints = {key: trial.system_attrs[key] for key in self._constraints if key in trial.system_attrs}
        converted = create_trial(
            state=trial.state,
            values=trial.values,
            params=replay.params,
            distributions=replay.distributions,
            intermediate_values=trial.intermediate_values,
            system_attrs={IMPORTED: dict(mark), **constraints},
        )
        converted.datetime_start, converted.datetime_complete = trial.datetime_start, trial.datetime_complete
        return converted

    def _replay(self, trial: FrozenTrial) -> ParameterReplay:
        """The trial's parameters, suggested once more from this study's search space."""
        replay = ParameterReplay(
            {name: self._stored(name, value) for name, value in trial.params.items() if name in self._codecs}
        )
        self._space.suggest(replay)
        for name in trial.params.keys() - self._codecs.keys():
            # The objective itself may suggest it here too, unless the other study declares it.
            if self._declared is None or name in self._declared:
                raise IncompatibleTrial(f"{name} is not searched here")
            replay.params[name], replay.distributions[name] = trial.params[name], trial.distributions[name]
        return replay

    def _stored(self, name: str, stored: Any) -> Any:
        """What this study's storage would hold for a value that the other study's storage holds."""
        signature = json.loads((self._declared or {}).get(name) or "{}")
        ordered = signature.get("attributes", {}).get("values")
        if ordered is None:
            value = stored
        elif signature["name"] == "IntDistribution":  # the position of a value in the list
            value = ordered[int(stored)]
        else:  # a point of a logarithmic scale, near one of the numbers
            value = min(ordered, key=lambda number: abs(math.log(number) - math.log(stored)))
        codec = self._codecs[name]
        try:
            return codec.encode(codec.decode(value) if isinstance(codec, Texts) else value)
        except ValueError:
            raise IncompatibleTrial(f"{name} is outside the search space") from None


class ParameterReplay:
    """A trial whose values are known: it suggests these, and records each with its distribution.

    Raises IncompatibleTrial for a parameter that has no value, or one outside the distribution.
    """

    def __init__(self, values: Mapping[str, Any]) -> None:
        self._values = values
        self.params: dict[str, Any] = {}
        self.distributions: dict[str, BaseDistribution] = {}

    def suggest_float(
        self, name: str, low: float, high: float, *, step: float | None = None, log: bool = False
    ) -> float:
        return float(self._suggest(name, FloatDistribution(low, high, step=step, log=log)))

    def suggest_int(self, name: str, low: int, high: int, *, step: int = 1, log: bool = False) -> int:
        return int(self._suggest(name, IntDistribution(low, high, step=step, log=log)))

    def suggest_categorical(self, name: str, choices: Sequence[Any]) -> Any:
        return self._suggest(name, CategoricalDistribution(choices))

    def _suggest(self, name: str, distribution: BaseDistribution) -> Any:
        if name not in self._values:
            raise IncompatibleTrial(f"no value for {name}")
        value = self._values[name]
        if isinstance(distribution, CategoricalDistribution):  # 1, 1.0 and true are different choices
            inside = any(type(value) is type(choice) and value == choice for choice in distribution.choices)
        else:
            number = isinstance(value, int | float) and not isinstance(value, bool)
            whole = not isinstance(distribution, IntDistribution) or (number and float(value) == int(value))
            inside = number and whole and distribution._contains(float(value))
        if not inside:
            raise IncompatibleTrial(f"{name} is outside the search space")
        self.params[name], self.distributions[name] = value, distribution
        return value
