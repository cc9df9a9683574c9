"""What an agent and its sampling process say to each other."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from aimlhpo.backends.operations import Operation


@dataclass(frozen=True)
class Request:
    """Trials to be sampled, as (trial id, number)."""

    trials: Sequence[tuple[int, int]]


@dataclass(frozen=True)
class Suggestion:
    """The user's values for a trial, and what is to be written with it."""

    number: int
    values: dict[str, Any]
    operations: list[Operation]


@dataclass(frozen=True)
class Answer:
    suggestions: Sequence[Suggestion]


@dataclass(frozen=True)
class Refusal:
    """Why there are no suggestions; an `outage` of the storage is worth another try."""

    reason: str
    outage: bool
