"""Writes to a trial, as values: gathered while a batch is open, then applied at once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from optuna.distributions import BaseDistribution
from optuna.storages import BaseStorage
from optuna.trial import FrozenTrial, TrialState


@dataclass(frozen=True)
class SetParam:
    trial_id: int
    name: str
    internal: float
    distribution: BaseDistribution

    def replay(self, storage: BaseStorage) -> None:
        storage.set_trial_param(self.trial_id, self.name, self.internal, self.distribution)

    def remember(self, trial: FrozenTrial) -> None:
        trial.params[self.name] = self.distribution.to_external_repr(self.internal)
        trial.distributions[self.name] = self.distribution


@dataclass(frozen=True)
class SetIntermediate:
    trial_id: int
    step: int
    value: float

    def replay(self, storage: BaseStorage) -> None:
        storage.set_trial_intermediate_value(self.trial_id, self.step, self.value)

    def remember(self, trial: FrozenTrial) -> None:
        trial.intermediate_values[self.step] = self.value


@dataclass(frozen=True)
class SetUserAttr:
    trial_id: int
    key: str
    value: Any

    def replay(self, storage: BaseStorage) -> None:
        storage.set_trial_user_attr(self.trial_id, self.key, self.value)

    def remember(self, trial: FrozenTrial) -> None:
        trial.user_attrs[self.key] = self.value


@dataclass(frozen=True)
class SetSystemAttr:
    trial_id: int
    key: str
    value: Any

    def replay(self, storage: BaseStorage) -> None:
        storage.set_trial_system_attr(self.trial_id, self.key, self.value)

    def remember(self, trial: FrozenTrial) -> None:
        trial.system_attrs[self.key] = self.value


@dataclass(frozen=True)
class SetState:
    trial_id: int
    state: TrialState
    values: Sequence[float] | None = None

    def replay(self, storage: BaseStorage) -> None:
        storage.set_trial_state_values(self.trial_id, self.state, self.values)

    def remember(self, trial: FrozenTrial) -> None:
        trial.state = self.state
        if self.values is not None:
            trial.values = list(self.values)


@dataclass(frozen=True)
class SetStart:
    """When a trial began that was claimed before; Optuna's own interface has no way to say so."""

    trial_id: int
    at: datetime

    def replay(self, storage: BaseStorage) -> None:
        pass

    def remember(self, trial: FrozenTrial) -> None:
        trial.datetime_start = self.at


Operation = SetParam | SetIntermediate | SetUserAttr | SetSystemAttr | SetState | SetStart
