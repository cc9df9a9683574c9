"""What the ledger needs to know of a study, and how writes reach the storage."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, NamedTuple, Protocol

from optuna.trial import FrozenTrial, TrialState

from aimlhpo.backends.operations import Operation, SetParam

CLAIM = "aimlhpo:claim"
RELEASED = "aimlhpo:released"
PAUSED = "aimlhpo:paused"
OURS = (CLAIM, RELEASED, PAUSED)
"""System attributes of a trial that say where it stands."""


def waits_at_rung(state: TrialState, paused: Mapping[str, Any] | None) -> bool:
    """Whether a trial is paused, and goes on only if it is promoted; `paused` is its attribute."""
    return state == TrialState.WAITING and bool(paused) and not (paused or {}).get("promoted")


def token_of(trial: FrozenTrial) -> str | None:
    """Under which claim a trial is held."""
    return (trial.system_attrs.get(CLAIM) or {}).get("token")


def has_begun(claim: Mapping[str, Any]) -> bool:
    """Whether a claimed trial was started; one that was claimed ahead waits for a slot of its agent."""
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
        return (self.claim or {}).get("token")

    @property
    def begun(self) -> bool:
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
        """Whether the end of the attempt under this token stands in the trial's history already."""
        return token is not None and (self.released or {}).get("token") == token

    def held_with(self, token: str) -> bool:
        return self.state == TrialState.RUNNING and self.token == token


class Place(NamedTuple):
    """Where a trial is in the storage and in the study."""

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
    """One storage."""

    def overview(self, study_id: int) -> Overview:
        """The study as it is now."""

    def latest_ends(self, study_id: int, most: int) -> Sequence[datetime]:
        """When the last of the COMPLETE and PRUNED trials ended, in local time; the earliest first."""

    def open_trial(self, trial_id: int) -> OpenTrial:
        """One trial as it is now. Raises KeyError where there is none."""

    def introduce(self, operation: SetParam) -> None:
        """Write a parameter new to this process. Raises ValueError where the study has another kind under the name."""

    def apply(self, operations: Sequence[Operation]) -> None:
        """Write all of a batch, in order; a storage that can do so writes all or nothing."""

    def commit(self, study_id: int, operations: Sequence[Operation], new: Sequence[FrozenTrial]) -> dict[str, Place]:
        """The same, and make trials with the states and system attributes of `new`; where the claimed ones are."""
