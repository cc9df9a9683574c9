"""A search by asynchronous workers on a virtual clock: a real searcher, trainings from a task.

`search` runs one study. The searcher says what to train and what to stop; the clock says which result comes next. As
aimlhpo does, each slot's next trial is sampled when its present one begins (a sampler then sees nothing of the present
one), except for those that `claim_ahead: auto` leaves until the slot is free. Or all are sampled then, as in Optuna's
own loop and in the other packages.
"""

from __future__ import annotations

import heapq
import warnings
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from aimlhpo.agent.dispatcher import JUDGED, claims_ahead
from benchmarks.search.task import Array, Task


@dataclass(frozen=True)
class Asked:
    """What a searcher wants trained: the trial by that number, from where it stands, until it has so many epochs."""

    number: int
    values: Mapping[str, Any]
    epochs: int


class Searcher(Protocol):
    """Decides what is trained."""

    def ask(self) -> Asked | None:
        """What a free slot trains next; a trial that was trained in part may be asked for again.

        None: nothing until another trial has ended.
        """

    def report(self, asked: Asked, epoch: int, value: float) -> bool:
        """Take the value after the epoch, counted from 0, of a trial that can go on.

        True frees its slot: the trial has been stopped, or is paused until it is asked for again.
        """

    def finish(self, asked: Asked, epoch: int, value: float) -> None:
        """Take the value after the last of the epochs that were asked for."""

    def failed(self, asked: Asked) -> None:
        """Take note that the trial has failed in its first epoch."""


@dataclass(frozen=True)
class Method:
    """A way to search.

    Attributes:
        start: a searcher for (seed, task, number of whole trainings that the budget is worth, workers).
        ahead: whether trials are sampled ahead as aimlhpo does it.
    """

    name: str
    start: Callable[[int, Task, int, int], Searcher]
    ahead: bool = False


@dataclass(frozen=True)
class Progress:
    """What a search had spent when the trial that looked best so far had ended, and how good that is without noise."""

    epochs: int
    seconds: float
    regret: float


@dataclass(frozen=True)
class Search:
    """One search: each trial that was better than those before it, how many trials there were, and their epochs."""

    progress: list[Progress]
    trials: int
    complete: int
    failed: int = 0
    epochs: int = 0


def search(method: Method, task: Task, workers: int, budget: int, seed: int, trials: int | None = None) -> Search:
    """Search until `budget` epochs are spent, or until so many trials have ended where their number is given.

    With a number of trials, no searcher may pause any. Raises RuntimeError where the searcher leaves all slots without
    work before the end.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        searcher = method.start(seed, task, trials or budget // task.epochs, workers)
        return _Clock(method, task, workers, budget, seed, searcher, trials).run()


@dataclass
class _Training:
    """A trial: its curve, how long an epoch takes, and how many it has behind it."""

    values: Mapping[str, Any]
    curve: Array
    pace: float
    epochs: int = 0


class _Clock:
    def __init__(
        self,
        method: Method,
        task: Task,
        workers: int,
        budget: int,
        seed: int,
        searcher: Searcher,
        most: int | None,
    ) -> None:
        self._method, self._task, self._workers, self._budget = method, task, workers, budget
        self._searcher, self._most = searcher, most
        self._random = np.random.default_rng([seed, 1])
        self._events: list[tuple[float, int, int]] = []  # when an epoch ends, in which order, in which slot
        self._order = 0
        self._trainings: dict[int, _Training] = {}
        self._running: dict[int, Asked] = {}  # by slot
        self._ready: dict[int, Asked] = {}
        self._numbers: set[int] = set()
        self._complete = 0
        self._durations: deque[float] = deque(maxlen=JUDGED)

    def run(self) -> Search:
        searcher, task = self._searcher, self._task
        best, seconds, spent, complete, failed = np.inf, 0.0, 0, 0, 0
        progress: list[Progress] = []
        for slot in range(self._workers):
            self._begin(slot, 0.0)
        while spent < self._budget:
            if not self._events:
                if len(self._numbers) == self._most:
                    break
                raise RuntimeError(f"{self._method.name} has nothing to train after {spent} of {self._budget} epochs")
            now, _, slot = heapq.heappop(self._events)
            asked = self._running[slot]
            training = self._trainings[asked.number]
            epoch = training.epochs
            training.epochs += 1
            spent += 1
            seconds += training.pace
            value = float(training.curve[epoch])
            if not task.is_feasible(training.values):
                searcher.failed(asked)
                failed += 1
                self._end(slot, now)
            elif training.epochs == asked.epochs:
                searcher.finish(asked, epoch, value)
                if training.epochs == task.epochs:
                    complete += 1
                    if value < best:
                        best = value
                        progress.append(Progress(spent, seconds, task.regret(task.final(training.values))))
                self._end(slot, now, training)
            elif searcher.report(asked, epoch, value):
                self._end(slot, now, training)
            else:
                self._go_on(slot, now, training)
        return Search(progress, len(self._numbers), complete, failed, spent)

    def _ask(self) -> Asked | None:
        if len(self._numbers) == self._most:
            return None
        asked = self._searcher.ask()
        if asked is not None:
            self._numbers.add(asked.number)
        return asked

    def _begin(self, slot: int, now: float) -> None:
        """Give a free slot something to train, if there is anything."""
        asked = self._ready.pop(slot) if slot in self._ready else self._ask()
        if asked is None:
            return
        if asked.number not in self._trainings:
            curve = self._task.curve(asked.values, int(self._random.integers(2**31)))
            self._trainings[asked.number] = _Training(asked.values, curve, self._task.epoch_seconds(asked.values))
        training = self._trainings[asked.number]
        if not training.epochs < asked.epochs <= self._task.epochs:
            raise ValueError(
                f"{self._method.name} asks for epoch {asked.epochs} of trial {asked.number}, which has "
                f"{training.epochs} of {self._task.epochs}"
            )
        self._running[slot] = asked
        self._go_on(slot, now, training)
        durations = self._durations if self._workers > 1 else []
        if self._method.ahead and claims_ahead(self._complete, self._workers, durations):
            ahead = self._ask()
            if ahead is not None:
                self._ready[slot] = ahead

    def _go_on(self, slot: int, now: float, training: _Training) -> None:
        self._order += 1
        heapq.heappush(self._events, (now + training.pace, self._order, slot))

    def _end(self, slot: int, now: float, training: _Training | None = None) -> None:
        """Free the slot, and begin in all that are free; the duration of a trial that failed is not counted."""
        del self._running[slot]
        if training is not None:
            self._complete += training.epochs == self._task.epochs
            self._durations.append(training.pace * training.epochs)
        for free in [slot, *(other for other in range(self._workers) if other != slot)]:
            if free not in self._running:
                self._begin(free, now)
