"""The words in which the rest of the package speaks with a storage.

Operations: the writes to a trial as values, so that they can be gathered and written together.
OpenTrial and Overview: what the ledger needs to know of a study.
Backend: how these questions are answered and operations written; see `owned` for the backends that there are.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, NamedTuple, Protocol

from optuna.distributions import BaseDistribution
from optuna.storages import BaseStorage
from optuna.trial import FrozenTrial, TrialState

# Each operation can be replayed on a storage: one call of Optuna's public interface.


@dataclass(frozen=True)
class SetParam:
    trial_id: int
    name: str
    internal: float
    distribution: BaseDistribution

    def replay(self, storage: BaseStorage) -> None:
        storage.set_trial_param(self.trial_id, self.name, self.internal, self.distribution)


@dataclass(frozen=True)
class SetIntermediate:
    trial_id: int
    step: int
    value: float

    def replay(self, storage: BaseStorage) -> None:
        storage.set_trial_intermediate_value(self.trial_id, self.step, self.value)


@dataclass(frozen=True)
class SetUserAttr:
    trial_id: int
    key: str
    value: Any

    def replay(self, storage: BaseStorage) -> None:
        storage.set_trial_user_attr(self.trial_id, self.key, self.value)


@dataclass(frozen=True)
class SetSystemAttr:
    trial_id: int
    key: str
    value: Any

    def replay(self, storage: BaseStorage) -> None:
        storage.set_trial_system_attr(self.trial_id, self.key, self.value)


@dataclass(frozen=True)
class SetState:
    trial_id: int
    state: TrialState
    values: Sequence[float] | None = None

    def replay(self, storage: BaseStorage) -> None:
        storage.set_trial_state_values(self.trial_id, self.state, self.values)


@dataclass(frozen=True)
class SetStart:
    """When a trial began that was claimed ahead; Optuna's public interface keeps the time of the claim instead."""

    trial_id: int
    at: datetime

    def replay(self, storage: BaseStorage) -> None:
        pass


Operation = SetParam | SetIntermediate | SetUserAttr | SetSystemAttr | SetState | SetStart


CLAIM = "aimlhpo:claim"
RELEASED = "aimlhpo:released"
PAUSED = "aimlhpo:paused"
STATUS_ATTRS = (CLAIM, RELEASED, PAUSED)
"""System attributes of a trial: who holds it, how its earlier attempts ended, and at which rung it waits."""


def waits_at_rung(state: TrialState, paused: Mapping[str, Any] | None) -> bool:
    """Whether a trial is paused, and goes on only if it is promoted; `paused` is its attribute."""
    return state == TrialState.WAITING and bool(paused) and not (paused or {}).get("promoted")


def token_of(trial: FrozenTrial) -> str | None:
    """The token of the claim that a trial is, or was last, held under."""
    return (trial.system_attrs.get(CLAIM) or {}).get("token")


def has_begun(claim: Mapping[str, Any]) -> bool:
    """Whether a claimed trial was started; one that was claimed ahead still waits for a slot of its agent."""
    return claim.get("since", 0.0) is not None


@dataclass(frozen=True)
class OpenTrial:
    """A trial as the ledger sees it: who holds it, how often it was given back, and whether it waits at a rung."""

    trial_id: int
    number: int
    state: TrialState
    claim: dict[str, Any] | None = None
    released: dict[str, Any] | None = None
    paused: dict[str, Any] | None = None

    @property
    def is_paused(self) -> bool:
        """Whether it waits at a rung, and goes on only if it is promoted."""
        return waits_at_rung(self.state, self.paused)

    @property
    def rung(self) -> int | None:
        """The resource of the rung that it last paused at."""
        return (self.paused or {}).get("rung")

    @property
    def token(self) -> str | None:
        """The token of its last claim."""
        return (self.claim or {}).get("token")

    @property
    def begun(self) -> bool:
        """Whether it was started under its last claim."""
        return has_begun(self.claim or {})

    @property
    def attempts(self) -> int:
        """How often the trial was begun and given back."""
        return int((self.released or {}).get("attempts", 0))

    @property
    def seconds(self) -> float:
        """Time spent in earlier attempts."""
        return float((self.released or {}).get("seconds", 0.0))

    @property
    def gpu_seconds(self) -> float:
        """The same, times the GPUs that it had."""
        return float((self.released or {}).get("gpu_seconds", 0.0))

    def ended_with(self, token: str) -> bool:
        """Whether the claim with this token has ended the trial, or paused it."""
        if self.is_paused:
            return (self.paused or {}).get("token") == token
        return self.state.is_finished() and self.token == token and not self.interrupted_with(token)

    def interrupted_with(self, token: str | None) -> bool:
        """Whether the trial's history has the end of the attempt under this token already."""
        return token is not None and (self.released or {}).get("token") == token

    def held_with(self, token: str) -> bool:
        """Whether the claim with this token is the one that the trial runs under."""
        return self.state == TrialState.RUNNING and self.token == token


class Place(NamedTuple):
    """A trial's id in the storage and its number in the study."""

    trial_id: int
    number: int


@dataclass(frozen=True)
class Overview:
    """Finished trials by state, and the RUNNING and WAITING ones, by number."""

    complete: int = 0
    pruned: int = 0
    failed: int = 0
    open: Sequence[OpenTrial] = field(default_factory=list)

    @property
    def paused(self) -> list[OpenTrial]:
        return [trial for trial in self.open if trial.is_paused]


class Backend(Protocol):
    """What the ledger asks of a storage, and how a batch of operations is written to it."""

    def overview(self, study_id: int) -> Overview:
        """The study as it is now."""

    def latest_ends(self, study_id: int, most: int) -> Sequence[datetime]:
        """When the last of the COMPLETE and PRUNED trials ended, in local time; the earliest first."""

    def open_trial(self, trial_id: int) -> OpenTrial:
        """One trial as it is now. Raises KeyError where there is none."""

    def introduce(self, operation: SetParam) -> None:
        """Write a parameter that is new to this process. Raises ValueError if its kind is not the study's."""

    def apply(self, operations: Sequence[Operation]) -> None:
        """Write a batch, in order; all of it or nothing, if the storage can do so."""

    def commit(self, study_id: int, operations: Sequence[Operation], new: Sequence[FrozenTrial]) -> dict[str, Place]:
        """Write a batch, and make trials with the states and system attributes of `new`.

        Returns where the claimed ones among the new trials are, by the token of their claim.
        """
