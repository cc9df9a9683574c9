"""What an agent asks of the ledger at once, and the answers."""

from __future__ import annotations

import secrets
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import Any

from optuna.trial import TrialState

from aimlhpo.backends.operations import Operation


@dataclass(frozen=True)
class Claim:
    """The right to run one trial, for as long as the token stands in the storage."""

    trial_id: int
    number: int
    token: str
    attempt: int
    seconds_before: float = 0.0
    gpu_seconds_before: float = 0.0


class Nothing(Enum):
    """Why there is no trial to claim."""

    DONE = "the budget is finished"
    WAIT = "all that is left of the budget is running"
    SOON = "all that is left of the budget is claimed, but not all of it has begun"
    STOPPED = "a stopping rule has ended the study"


@dataclass(frozen=True)
class Wish:
    """A claim that is asked for, under a token of its own.

    `since` is when the trial begins, in seconds since the epoch; None claims it ahead, for no slot in particular.
    """

    token: str
    slot: int | None = None
    device: str | None = None
    gpus: float = 0.0
    since: float | None = None

    @property
    def ahead(self) -> bool:
        return self.since is None


@dataclass(frozen=True)
class Beginning:
    """A trial that was claimed ahead runs in a slot, `since` seconds since the epoch."""

    claim: Claim
    slot: int
    device: str
    gpus: float
    since: float


@dataclass(frozen=True)
class Finish:
    """A trial's result, with its reports, some of which may be stored already. The state WAITING pauses the trial."""

    claim: Claim
    state: TrialState
    values: Sequence[float] | None
    record: dict[str, Any]
    reports: Sequence[tuple[int, float]] = ()


@dataclass(frozen=True)
class Release:
    """An unfinished trial is given back; one that has not begun (`cause` is None) as if it had never been claimed."""

    claim: Claim
    cause: str | None
    seconds: float = 0.0


@dataclass
class Turn:
    """Requests that are decided on one after another and written at once; `along` is written with them, by trial."""

    finishes: Sequence[Finish] = ()
    releases: Sequence[Release] = ()
    wishes: Sequence[Wish] = ()
    along: dict[int, list[Operation]] = field(default_factory=dict)
    beginnings: Sequence[Beginning] = ()

    @property
    def asks(self) -> bool:
        """Whether there is anything to decide."""
        return bool(self.beginnings or self.finishes or self.releases or self.wishes)

    @property
    def operations(self) -> list[Operation]:
        return [operation for operations in self.along.values() for operation in operations]

    def parts(self) -> Iterator[Turn]:
        """A turn for each trial, and one for the rest: what is wrong with one must not cost the others."""
        for trial_id, operations in self.along.items():
            yield Turn(along={trial_id: operations})
        for beginning in self.beginnings:
            yield Turn(beginnings=[beginning])
        for finish in self.finishes:
            yield Turn(finishes=[finish])
        if self.releases or self.wishes:
            yield Turn(releases=self.releases, wishes=self.wishes)


@dataclass
class Settled:
    """The answers, by token: which trials began, which results were taken, which given back, and what was claimed."""

    begun: dict[str, bool] = field(default_factory=dict)
    finished: dict[str, bool] = field(default_factory=dict)
    released: dict[str, bool] = field(default_factory=dict)
    claims: dict[str, Claim | Nothing] = field(default_factory=dict)

    @classmethod
    def of(cls, parts: Iterable[Settled]) -> Settled:
        """The answers to parts of a turn, together."""
        whole = cls()
        for part in parts:
            whole.begun |= part.begun
            whole.finished |= part.finished
            whole.released |= part.released
            whole.claims |= part.claims
        return whole


def new_token() -> str:
    return secrets.token_hex(8)
