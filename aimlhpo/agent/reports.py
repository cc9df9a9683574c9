"""Reports on their way from the workers to the storage, gathered into batches while the clerk is busy."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence

from aimlhpo.protocol import Decision, Report


class Reports:
    """What has come in and is not yet written, by trial."""

    def __init__(self) -> None:
        self._waiting: dict[int, list[Report]] = {}
        self._lock = threading.Lock()

    def add(self, report: Report) -> bool:
        """Keep a report; True if it is the first of a batch, for which a Flush must be submitted."""
        with self._lock:
            batch = self._waiting.setdefault(report.number, [])
            batch.append(report)
            return len(batch) == 1

    def take(self, number: int) -> list[Report]:
        with self._lock:
            return self._waiting.pop(number, [])


class Flush:
    """A clerk's job: write a trial's batch. When it is repeated, it takes along what has come in since."""

    def __init__(self, reports: Reports, number: int, write: Callable[[Sequence[Report]], Decision]) -> None:
        self._reports, self._number, self._write = reports, number, write
        self._batch: list[Report] = []

    def __call__(self) -> Decision | None:
        self._batch += self._reports.take(self._number)
        return self._write(self._batch) if self._batch else None
