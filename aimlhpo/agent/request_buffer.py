"""What gathers for the clerk between two of its turns, so that one write does for all of it.
Which worker reports on which trial, and what it was told of pruning.
The agent's desk: what the main thread hands to the clerk, and what it learns of the study in return.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from aimlhpo.ledger.outbox import Result
from aimlhpo.ledger.requests import Claim, ClaimRequest, Release
from aimlhpo.objective.messages import Report, UserAttr
from aimlhpo.search.sampling import Suggestion
from aimlhpo.worker.devices import Slot

if TYPE_CHECKING:
    pass


@dataclass(frozen=True)
class BegunTrial:
    """A trial that was claimed ahead runs since then, in seconds since the epoch."""

    claim: Claim
    slot: Slot
    since: float


@dataclass(frozen=True)
class EndedTrial:
    claim: Claim
    result: Result


@dataclass(frozen=True)
class SampledTrial:
    """What is suggested for a trial that was claimed in that term of the lease."""

    claim: Claim
    suggestion: Suggestion
    term: int


Entry = Report | UserAttr | BegunTrial | EndedTrial | Release | ClaimRequest | SampledTrial


@dataclass
class PendingRequests:
    """What one turn is made of; it grows where the turn has to be repeated."""

    reports: dict[int, list[Report]] = field(default_factory=dict)
    attributes: list[UserAttr] = field(default_factory=list)
    begun: list[BegunTrial] = field(default_factory=list)
    ended: list[EndedTrial] = field(default_factory=list)
    releases: list[Release] = field(default_factory=list)
    wishes: list[ClaimRequest] = field(default_factory=list)
    sampled: list[SampledTrial] = field(default_factory=list)

    def take(self, entries: Iterable[Entry]) -> None:
        for entry in entries:
            self._sort(entry)

    def _sort(self, entry: Entry) -> None:
        match entry:
            case Report():
                self.reports.setdefault(entry.number, []).append(entry)
            case UserAttr():
                self.attributes.append(entry)
            case BegunTrial():
                self.begun.append(entry)
            case EndedTrial():
                self.ended.append(entry)
            case Release():
                self.releases.append(entry)
            case ClaimRequest():
                self.wishes.append(entry)
            case SampledTrial():
                self.sampled.append(entry)


class RequestBuffer:
    """Filled by the agent's main thread, emptied by the clerk's; `strict` says that workers wait for decisions."""

    def __init__(self, *, strict: bool = False) -> None:
        self._patient = () if strict else (Report, UserAttr)
        self._entries: list[Entry] = []
        self._awaited = self._urgent = False
        self._lock = threading.Lock()

    def put(self, entry: Entry) -> None:
        with self._lock:
            self._entries.append(entry)
            self._urgent = self._urgent or not isinstance(entry, self._patient)

    @property
    def is_urgent(self) -> bool:
        """Whether somebody waits for what lies here: for reports, only where pruning is strict."""
        return self._urgent

    def wants_turn(self) -> bool:
        """Whether a turn has to be submitted: there is something, and nobody is on the way to take it."""
        with self._lock:
            wanted = bool(self._entries) and not self._awaited
            self._awaited = self._awaited or wanted
            return wanted

    def empty(self) -> list[Entry]:
        with self._lock:
            taken, self._entries = self._entries, []
            self._awaited = self._urgent = False
            return taken

    @property
    def is_empty(self) -> bool:
        return not self._entries
