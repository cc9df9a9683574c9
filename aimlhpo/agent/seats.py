"""All seats of an agent."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from multiprocessing.connection import Connection

from aimlhpo.agent.process import WorkerProcess
from aimlhpo.agent.seat import Seat, State
from aimlhpo.devices import Slot

_TERM_PATIENCE = 5.0  # seconds that a worker has between SIGTERM and SIGKILL


class Seats:
    """One seat for each slot, with a worker in it once `fill` was called."""

    def __init__(self, slots: Sequence[Slot], start: Callable[[Slot], WorkerProcess]) -> None:
        self._slots, self._start = slots, start
        self._seats: list[Seat] = []

    def fill(self) -> None:
        self._seats = [Seat(slot, self._start) for slot in self._slots]

    def __iter__(self) -> Iterator[Seat]:
        return iter(self._seats)

    def __len__(self) -> int:
        return len(self._slots)

    @property
    def busy(self) -> list[Seat]:
        return [seat for seat in self._seats if seat.state is State.BUSY]

    @property
    def all_retired(self) -> bool:
        return all(seat.state is State.RETIRED for seat in self._seats)

    def connections(self) -> list[Connection]:
        """Where workers are heard; where the system has refused one there is nobody to hear."""
        heard = (seat for seat in self._seats if seat.state is not State.RETIRED and not seat.worker.refused)
        return [seat.worker.connection for seat in heard]

    def heard_on(self, source: object) -> list[Seat]:
        """The seat whose worker is at the other end, unless its connection was closed meanwhile."""
        return [seat for seat in self._seats if seat.worker.connection is source and seat.state is not State.RETIRED]

    def neighbours(self, seat: Seat) -> list[Seat]:
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
