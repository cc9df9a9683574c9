"""A worker hears of pruning when there is something new for it, and always where it waits for the decision."""

from __future__ import annotations

from typing import cast

import pytest

from aimlhpo.agent.storage_client import PruningNotifier
from aimlhpo.agent.worker_process import WorkerProcess
from aimlhpo.objective.messages import Decision


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
def test_worker_is_told_what_changes(strict: bool, told: list[bool]) -> None:
    notifier, worker = PruningNotifier(strict=strict), Listener()
    notifier.note_report(3, cast(WorkerProcess, worker))
    decide(notifier, 3, False, False, True, True, False)
    decide(notifier, 4, True)
    assert worker.told == told


def test_next_attempt_and_next_worker_know_nothing_yet() -> None:
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
