"""Which worker reports on which trial, and what it was told of pruning."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from aimlhpo.protocol import Decision

if TYPE_CHECKING:
    from aimlhpo.agent.process import WorkerProcess


class Reporters:
    """Tells workers the decisions that change what they know: each of them begins with a trial that goes on.

    A message costs the training in Python more than its report does, because another thread has to receive it. With
    `strict` every decision is told, as the worker waits for it.
    """

    def __init__(self, *, strict: bool) -> None:
        self._strict = strict
        self._workers: dict[int, WorkerProcess] = {}
        self._told: dict[int, bool] = {}

    def heard(self, number: int, worker: WorkerProcess) -> None:
        """The worker has reported on the trial."""
        if self._workers.get(number) is not worker:
            self._workers[number], self._told[number] = worker, False

    def forget(self, number: int) -> None:
        """The attempt is over."""
        self._workers.pop(number, None)
        self._told.pop(number, None)

    def tell(self, decisions: Iterable[Decision]) -> None:
        for decision in decisions:
            worker = self._workers.get(decision.number)
            if worker is not None and (self._strict or decision.prune != self._told[decision.number]):
                self._told[decision.number] = decision.prune
                worker.answer(decision)
