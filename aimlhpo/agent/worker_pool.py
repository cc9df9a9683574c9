"""A slot with the worker in it, as the agent's main thread keeps it.
All seats of an agent.
How an agent comes by its workers.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from enum import Enum, auto
from multiprocessing.connection import Connection
from types import TracebackType
from typing import TYPE_CHECKING, Self

from aimlhpo.agent.fork_server import ForkServer
from aimlhpo.agent.progress import SlotState
from aimlhpo.agent.trial_store import PreparedTrial
from aimlhpo.agent.worker_process import WorkerProcess
from aimlhpo.config.command import command_spec
from aimlhpo.objective.messages import Report, Setup, Stop, StudyInfo
from aimlhpo.worker.devices import Slot

if TYPE_CHECKING:
    from aimlhpo.config.schema import Config


class WorkerState(Enum):
    """STARTING -> IDLE <-> CLAIMING -> BUSY -> IDLE ... -> RETIRED."""

    STARTING = auto()
    IDLE = auto()
    CLAIMING = auto()
    BUSY = auto()
    RETIRED = auto()


@dataclass
class Running:
    """The trial that a seat runs."""

    work: PreparedTrial
    started: float
    log_offset: int
    reports: list[Report] = field(default_factory=list)
    alone: bool = False

    @property
    def seconds(self) -> float:
        return time.monotonic() - self.started


class WorkerSlot:
    """One slot: its worker, replaced when it dies, and the trial it runs."""

    def __init__(self, slot: Slot, start: Callable[[Slot], WorkerProcess]) -> None:
        self.slot = slot
        self.state = WorkerState.STARTING
        self.running: Running | None = None
        self.retry_at = 0.0
        self.early_deaths = 0
        self.for_itself: PreparedTrial | None = None
        self.provenance = ""
        self._start = start
        self.worker = start(slot)

    def assign(self, work: PreparedTrial, *, alone: bool = False) -> None:
        """Run the trial; `alone` keeps the other slots of this GPU empty meanwhile."""
        self.state = WorkerState.BUSY
        self.running = Running(work, time.monotonic(), self.worker.begin_trial(), alone=alone)
        with suppress(OSError):  # a worker that has just died: the end of its pipe tells
            self.worker.connection.send(work.assignment)

    def clear(self) -> Running | None:
        """The trial is over, one way or another."""
        running, self.running = self.running, None
        self.state = WorkerState.IDLE
        self.retry_at = 0.0
        return running

    def retire(self) -> None:
        """No more trials for this slot: its worker ends by itself."""
        self.state = WorkerState.RETIRED
        with suppress(OSError):
            self.worker.connection.send(Stop())

    def replace_worker(self) -> None:
        self.worker.kill()
        self.worker.connection.close()
        self.worker = self._start(self.slot)
        self.state = WorkerState.STARTING

    @property
    def is_occupied(self) -> bool:
        return self.state in (WorkerState.BUSY, WorkerState.CLAIMING)

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


_TERM_PATIENCE = 5.0  # seconds that a worker has between SIGTERM and SIGKILL


class WorkerPool:
    """One seat for each slot, with a worker in it once `fill` was called."""

    def __init__(self, slots: Sequence[Slot], start: Callable[[Slot], WorkerProcess]) -> None:
        self._slots, self._start = slots, start
        self._seats: list[WorkerSlot] = []

    def fill(self) -> None:
        self._seats = [WorkerSlot(slot, self._start) for slot in self._slots]

    def __iter__(self) -> Iterator[WorkerSlot]:
        return iter(self._seats)

    def __len__(self) -> int:
        return len(self._slots)

    @property
    def busy(self) -> list[WorkerSlot]:
        return [seat for seat in self._seats if seat.state is WorkerState.BUSY]

    @property
    def all_retired(self) -> bool:
        return all(seat.state is WorkerState.RETIRED for seat in self._seats)

    def connections(self) -> list[Connection]:
        """Where workers are heard; where the system has refused one there is nobody to hear."""
        heard = (seat for seat in self._seats if seat.state is not WorkerState.RETIRED and not seat.worker.refused)
        return [seat.worker.connection for seat in heard]

    def heard_on(self, source: object) -> list[WorkerSlot]:
        """The seat whose worker is at the other end, unless its connection was closed meanwhile."""
        return [
            seat for seat in self._seats if seat.worker.connection is source and seat.state is not WorkerState.RETIRED
        ]

    def neighbours(self, seat: WorkerSlot) -> list[WorkerSlot]:
        """Those that share a GPU with the seat."""
        gpus = set(seat.slot.gpus)
        return [other for other in self._seats if other is not seat and gpus & set(other.slot.gpus)]

    def ask_again(self) -> None:
        """A trial has ended: seats that found nothing to claim need not wait longer."""
        for seat in self._seats:
            seat.retry_at = 0.0

    def end_workers(self) -> None:
        for seat in self._seats:
            seat.worker.terminate()
        deadline = time.monotonic() + _TERM_PATIENCE
        for seat in self._seats:
            seat.worker.wait(max(0.0, deadline - time.monotonic()))


class WorkerStarter:
    """Starts workers, forked of one process that has imported the objective for all of them.

    Within the `with` block that process is there: `fork_server` where the command has started it already, else one
    of the agent's own, which starts to import at once.
    """

    def __init__(
        self, config: Config, agent: str, slots: Sequence[Slot], fork_server: ForkServer | None = None
    ) -> None:
        self._config, self._agent, self._slots = config, agent, slots
        self._fork_server = fork_server

    def __enter__(self) -> Self:
        log = self._config.paths.import_log(self._agent)
        if self._fork_server is not None:
            self._fork_server.write_log(log)
        else:
            self._fork_server = ForkServer(log)
            # The first slot's environment: thread numbers are read at import, and slots have equally many GPUs.
            self._fork_server.load(self._config.optuna.objective or "", self._slots[0].environment())
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._fork_server is not None:
            self._fork_server.close()

    def start(self, slot: Slot) -> WorkerProcess:
        """A new worker for the slot; it may be there only when it is heard."""
        log = self._config.paths.worker_log(self._agent, slot.index)
        return WorkerProcess(slot, self._setup(slot), log, self._fork_server)

    def _setup(self, slot: Slot) -> Setup:
        options = self._config.optuna
        position = options.reported_metric
        reported = options.metric[position] if position is not None else None
        info = StudyInfo(options.study_name, tuple(options.direction), tuple(options.metric), reported)
        return Setup(
            options.objective or "", self._config.conf(), slot.device, info, command_spec(self._config), slot.ranks
        )
