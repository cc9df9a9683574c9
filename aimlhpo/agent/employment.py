"""Keeps the seats busy: who is given which trial, who asks again later, who needs no worker any more."""

from __future__ import annotations

import time
from functools import partial
from typing import TYPE_CHECKING

from aimlhpo.agent.bookkeeper import Work
from aimlhpo.agent.seat import Seat, State
from aimlhpo.interruptions import newest_file
from aimlhpo.ledger import Nothing

if TYPE_CHECKING:
    from aimlhpo.agent.desk import Desk
    from aimlhpo.agent.halt import Halt
    from aimlhpo.agent.seats import Seats
    from aimlhpo.agent.walltime import Walltime
    from aimlhpo.config import Config
    from aimlhpo.election import Election

_POLL = 1.0  # seconds until a slot asks again when all that is left is running elsewhere


class Employment:
    """Gives trials to idle seats, for as long as trials may be started."""

    def __init__(
        self, config: Config, seats: Seats, desk: Desk, halt: Halt, walltime: Walltime, waiter: Election
    ) -> None:
        self._paths = config.paths
        self._seats, self._desk, self._halt = seats, desk, halt
        self._walltime, self._waiter = walltime, waiter

    def employ_idle(self) -> None:
        for seat in self._seats:
            if seat.state is State.IDLE:
                self._employ(seat)

    def _employ(self, seat: Seat) -> None:
        neighbours = self._seats.neighbours(seat)
        if seat.for_itself is not None:
            if not any(other.is_occupied for other in neighbours):
                work, seat.for_itself = seat.for_itself, None
                seat.assign(work, alone=True)
        elif time.monotonic() >= seat.retry_at and not any(other.wants_to_be_alone for other in neighbours):
            self._claim_for(seat)

    def _claim_for(self, seat: Seat) -> None:
        if self._is_closed():
            seat.retire()
            return
        seat.state = State.CLAIMING
        self._desk.claim(seat.slot, partial(self._prepared, seat))

    # --- whether trials may be started ---

    def _is_closed(self) -> bool:
        return self._halt.called or not self._fits()

    def _fits(self) -> bool:
        """Whether a trial can end within the walltime, or go on after it; a fresh job starts at least one."""
        if self._desk.trials_run == 0 or self._walltime.leaves(self._desk.standing.longest):
            return True
        return newest_file(self._paths.checkpoints) > 0

    # --- what a claim gives ---

    def _prepared(self, seat: Seat, work: Work | Nothing) -> None:
        if isinstance(work, Work):
            if self._halt.called or seat.state is not State.CLAIMING:
                self._desk.release(work.claim, self._halt.cause or "its worker died")
            else:
                seat.assign(work)
        elif seat.state is State.CLAIMING:
            self._rest(seat, work)

    def _rest(self, seat: Seat, reason: Nothing) -> None:
        """Ask again later where what runs now may still fail, here or (one agent of all waits) elsewhere."""
        if reason is Nothing.WAIT and (self._seats.busy or self._waiter.won()):
            seat.state, seat.retry_at = State.IDLE, time.monotonic() + _POLL
        else:
            seat.retire()
