"""A slot with the worker in it, as the agent's main thread keeps it."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from enum import Enum, auto

from aimlhpo.agent.preparing import Work
from aimlhpo.agent.process import WorkerProcess
from aimlhpo.devices import Slot
from aimlhpo.progress import SlotState
from aimlhpo.protocol import Report, Stop


class State(Enum):
    """STARTING -> IDLE <-> CLAIMING -> BUSY -> IDLE ... -> RETIRED."""

    STARTING = auto()
    IDLE = auto()
    CLAIMING = auto()
    BUSY = auto()
    RETIRED = auto()


@dataclass
class Running:
    """The trial that a seat runs."""

    work: Work
    started: float
    log_offset: int
    reports: list[Report] = field(default_factory=list)
    alone: bool = False

    @property
    def seconds(self) -> float:
        return time.monotonic() - self.started


class Seat:
    """One slot: its worker, replaced when it dies, and the trial it runs."""

    def __init__(self, slot: Slot, start: Callable[[Slot], WorkerProcess]) -> None:
        self.slot = slot
        self.state = State.STARTING
        self.running: Running | None = None
        self.retry_at = 0.0
        self.early_deaths = 0
        self.for_itself: Work | None = None
        self.provenance = ""
        self._start = start
        self.worker = start(slot)

    def assign(self, work: Work, *, alone: bool = False) -> None:
        """Run the trial; `alone` keeps the other slots of this GPU empty meanwhile."""
        self.state = State.BUSY
        self.running = Running(work, time.monotonic(), self.worker.begin_trial(), alone=alone)
        with suppress(OSError):  # a worker that has just died: the end of its pipe tells
            self.worker.connection.send(work.assignment)

    def clear(self) -> Running | None:
        """The trial is over, one way or another."""
        running, self.running = self.running, None
        self.state = State.IDLE
        self.retry_at = 0.0
        return running

    def retire(self) -> None:
        """No more trials for this slot: its worker ends by itself."""
        self.state = State.RETIRED
        with suppress(OSError):
            self.worker.connection.send(Stop())

    def replace_worker(self) -> None:
        self.worker.kill()
        self.worker.connection.close()
        self.worker = self._start(self.slot)
        self.state = State.STARTING

    @property
    def is_occupied(self) -> bool:
        return self.state in (State.BUSY, State.CLAIMING)

    @property
    def wants_to_be_alone(self) -> bool:
        """Whether the slots that share its GPU should stay empty."""
        return self.for_itself is not None or (self.running is not None and self.running.alone)

    def show(self) -> SlotState:
        running = self.running
        if running is None:
            return SlotState(self.slot.index, self.slot.label)
        last = running.reports[-1] if running.reports else None
        report = (last.step, last.value) if last else None
        return SlotState(self.slot.index, self.slot.label, running.work.claim.number, running.seconds, report)
