"""How often the main thread hands requests to the storage thread, and which decisions workers are told."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import pytest

from aimlhpo.agent.storage_client import PruningNotifier, StorageClient
from aimlhpo.agent.trial_store import BatchResult, TrialStore
from aimlhpo.agent.worker_pool import WorkerProcess
from aimlhpo.ledger.leases import Lease
from aimlhpo.ledger.requests import LedgerAnswer, Outbox
from aimlhpo.objective.messages import Decision, Report
from aimlhpo.storage.retry import SerialExecutor


class BusyExecutor:
    """An executor that does nothing before it is told to."""

    def __init__(self) -> None:
        self.waiting: list[Callable[[Any], None]] = []

    def submit(self, job: Callable[[], Any], callback: Callable[[Any], None]) -> None:
        self.waiting.append(callback)


class UnusedStore:
    """Its methods are submitted, and never called."""

    def reap(self) -> list[int]:
        raise NotImplementedError

    def process(self, requests: Any) -> BatchResult:
        raise NotImplementedError


def open_client(folder: Path, executor: BusyExecutor, *, strict: bool = False) -> StorageClient:
    return StorageClient(
        cast(TrialStore, UnusedStore()),
        cast(SerialExecutor, executor),
        Outbox(folder),
        cast(Lease, None),
        lambda line: None,
        slots=2,
        strict=strict,
    )


def test_dead_agents_are_looked_for_by_one_job_at_a_time(tmp_path: Path) -> None:
    executor = BusyExecutor()
    client = open_client(tmp_path, executor)
    for _ in range(3):
        client.reap()
    assert len(executor.waiting) == 1
    executor.waiting.pop()([])
    client.reap()
    assert len(executor.waiting) == 1


@pytest.mark.parametrize(("strict", "batches"), [(False, 0), (True, 1)])
def test_after_a_batch_that_took_long_reports_wait_where_nobody_waits_for_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, strict: bool, batches: int
) -> None:
    monkeypatch.setattr("aimlhpo.agent.storage_client._LONGEST_REST", 60.0)  # longer than a test may take
    executor = BusyExecutor()
    client = open_client(tmp_path, executor, strict=strict)
    client._after_batch(BatchResult(LedgerAnswer(), [], [], [], term=0, seconds=60.0))
    assert 0.0 < client.rest <= 60.0
    client.report(Report(0, 1, 0.5), cast(WorkerProcess, None))
    client.flush()
    assert len(executor.waiting) == batches


def test_a_claim_takes_reports_along_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("aimlhpo.agent.storage_client._LONGEST_REST", 60.0)
    executor = BusyExecutor()
    client = open_client(tmp_path, executor)
    client._after_batch(BatchResult(LedgerAnswer(), [], [], [], term=0, seconds=60.0))
    client.report(Report(0, 1, 0.5), cast(WorkerProcess, None))
    client.claim(None, lambda answer: None)
    client.flush()
    assert len(executor.waiting) == 1


class Listener:
    """A worker that keeps what it is told."""

    def __init__(self) -> None:
        self.told: list[bool] = []

    def answer(self, message: Decision) -> None:
        self.told.append(message.prune)


def decide(notifier: PruningNotifier, number: int, *prunes: bool) -> None:
    for step, prune in enumerate(prunes):
        notifier.tell([Decision(number, step, prune)])


@pytest.mark.parametrize(("strict", "told"), [(False, [True, False]), (True, [False, False, True, True, False])])
def test_worker_is_told_decisions_that_differ_from_the_last_one(strict: bool, told: list[bool]) -> None:
    notifier, worker = PruningNotifier(strict=strict), Listener()
    notifier.note_report(3, cast(WorkerProcess, worker))
    decide(notifier, 3, False, False, True, True, False)
    decide(notifier, 4, True)
    assert worker.told == told


def test_next_attempt_and_next_worker_are_told_anew() -> None:
    notifier, first, second = PruningNotifier(strict=False), Listener(), Listener()
    for _ in range(2):
        notifier.note_report(3, cast(WorkerProcess, first))
        decide(notifier, 3, True)
        notifier.forget(3)
    notifier.note_report(3, cast(WorkerProcess, first))
    decide(notifier, 3, True)
    notifier.note_report(3, cast(WorkerProcess, second))
    decide(notifier, 3, True)
    assert (first.told, second.told) == ([True, True, True], [True])
