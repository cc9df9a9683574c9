"""What the agent hands to its clerk, and how often."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import pytest

from aimlhpo.agent.request_buffer import PendingRequests
from aimlhpo.agent.storage_client import StorageClient
from aimlhpo.agent.storage_thread import SerialExecutor
from aimlhpo.agent.trial_store import BatchResult, TrialBuilder, TrialStore
from aimlhpo.agent.worker_process import WorkerProcess
from aimlhpo.ledger.outbox import Outbox
from aimlhpo.ledger.requests import LedgerAnswer
from aimlhpo.objective.messages import Report


class BusyClerk:
    """A clerk that gets to nothing before it is told to."""

    def __init__(self) -> None:
        self.waiting: list[Callable[[Any], None]] = []

    def submit(self, job: Callable[[], Any], then: Callable[[Any], None]) -> None:
        self.waiting.append(then)


class Books:
    def reap(self) -> list[int]:
        return []

    def turn(self, pile: PendingRequests) -> BatchResult:
        """Is never called by a busy clerk."""
        raise NotImplementedError


def open_desk(folder: Path, clerk: BusyClerk, *, strict: bool = False) -> StorageClient:
    books, preparing = cast(TrialStore, Books()), cast(TrialBuilder, None)
    return StorageClient(
        books,
        preparing,
        cast(SerialExecutor, clerk),
        Outbox(folder),
        lambda line: None,
        repeatable=False,
        strict=strict,
    )


def test_the_dead_are_looked_for_once_at_a_time(tmp_path: Path) -> None:
    clerk = BusyClerk()
    desk = open_desk(tmp_path, clerk)
    for _ in range(3):
        desk.reap()
    assert len(clerk.waiting) == 1
    clerk.waiting.pop()([])
    desk.reap()
    assert len(clerk.waiting) == 1


@pytest.mark.parametrize(("strict", "turns"), [(False, 0), (True, 1)])
def test_after_a_turn_that_took_long_reports_wait_where_nobody_waits_for_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, strict: bool, turns: int
) -> None:
    monkeypatch.setattr("aimlhpo.agent.storage_client._MOST_REST", 60.0)  # longer than a test may take
    clerk = BusyClerk()
    desk = open_desk(tmp_path, clerk, strict=strict)
    desk._after_turn(BatchResult(LedgerAnswer(), [], [], [], term=0, seconds=60.0))
    assert 0.0 < desk.rest <= 60.0
    desk.report(Report(0, 1, 0.5), cast(WorkerProcess, None))
    desk.flush()
    assert len(clerk.waiting) == turns


def test_a_claim_takes_reports_along_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("aimlhpo.agent.storage_client._MOST_REST", 60.0)
    clerk = BusyClerk()
    desk = open_desk(tmp_path, clerk)
    desk._after_turn(BatchResult(LedgerAnswer(), [], [], [], term=0, seconds=60.0))
    desk.report(Report(0, 1, 0.5), cast(WorkerProcess, None))
    desk.claim_ahead(lambda work: None)
    desk.flush()
    assert len(clerk.waiting) == 1
