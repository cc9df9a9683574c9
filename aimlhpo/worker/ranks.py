"""What rank 0 and the other ranks of a trial say to each other."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from aimlhpo.protocol import Assignment


@dataclass(frozen=True)
class Begin:
    """Run this trial; the ranks meet at `port`."""

    assignment: Assignment
    port: int


@dataclass(frozen=True)
class Shared:
    """What rank 0 was answered: a pruning decision, a suggested value, or the refusal of one."""

    value: Any = None
    error: Exception | None = None


@dataclass(frozen=True)
class Settled:
    """Rank 0 has ended the trial: no more answers come."""


@dataclass(frozen=True)
class RankEnded:
    """A follower has ended the trial; `cause` says what went wrong, if anything did."""

    cause: str | None = None
    error: str | None = None
