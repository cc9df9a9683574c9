"""Keeps the seats busy: who is given which trial, who asks again later, who needs no worker any more."""

from __future__ import annotations

import time
from collections import deque
from functools import partial
from typing import TYPE_CHECKING

from aimlhpo.agent.preparing import Work
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
_LOOK = 2.0  # seconds between two looks at whether others could run what was claimed ahead


class Employment:
    """Gives trials to idle seats, for as long as trials may be started.

    Trials that were claimed ahead lie in one pool, as many as seats are busy: whichever seat is free first takes one.
    """

    def __init__(
        self, config: Config, seats: Seats, desk: Desk, halt: Halt, walltime: Walltime, waiter: Election
    ) -> None:
        # A paused trial is promoted by what is known when a slot is free, not before.
        self._paths, self._ahead = config.paths, config.optuna.claim_ahead and not config.optuna.promotes
        self._seats, self._desk, self._halt = seats, desk, halt
        self._walltime, self._waiter = walltime, waiter
        self._pool: deque[Work] = deque()
        self._asked, self._started = 0, False
        self._next_look = 0.0

    def employ_idle(self) -> None:
        for seat in self._seats:
            if self._is_free(seat):
                self._employ(seat)
        self._ask_ahead()
        self._look_at_pool()
        self._desk.flush()

    def start_ready(self, seat: Seat) -> None:
        """Give the seat a trial at once where one is ready."""
        if self._is_free(seat) and seat.for_itself is None and not self._is_closed():
            self._take_ready(seat)

    def _is_free(self, seat: Seat) -> bool:
        """Whether the seat can run a trial now."""
        kept_empty = any(other.wants_to_be_alone for other in self._seats.neighbours(seat))
        return seat.state is State.IDLE and not seat.worker.gone and (seat.for_itself is not None or not kept_empty)

    def _employ(self, seat: Seat) -> None:
        if seat.for_itself is not None:
            if not any(other.is_occupied for other in self._seats.neighbours(seat)):
                work, seat.for_itself = seat.for_itself, None
                self._start(seat, work, alone=True)
        elif self._is_closed():
            seat.retire()
        elif not self._take_ready(seat) and self._asked == 0 and time.monotonic() >= seat.retry_at:
            seat.state = State.CLAIMING  # where something was asked for ahead, that comes soon
            self._desk.claim(seat.slot, partial(self._prepared, seat))

    def _start(self, seat: Seat, work: Work, *, alone: bool = False) -> None:
        seat.assign(work, alone=alone)
        self._started = self._ahead

    # --- what was claimed ahead ---

    def _ask_ahead(self) -> None:
        """Once a trial was started, after the last result was handed in: what the sampler sees is the same each time.

        All that is missing: where a worker was late, it began with a trial that was meant to be another's next one.
        """
        while self._started and len(self._pool) + self._asked < len(self._seats.busy):
            self._asked += 1
            self._desk.claim_ahead(self._prepared_ahead)
        self._started = False

    def _prepared_ahead(self, work: Work | Nothing) -> None:
        self._asked -= 1
        if isinstance(work, Work):
            self._pool.append(work)
            self._seats.ask_again()

    def _take_ready(self, seat: Seat) -> bool:
        while self._pool:
            work = self._pool.popleft()
            if self._desk.is_current(work):
                self._start(seat, work)
                self._desk.begin(work, seat.slot)
                return True
            self._desk.release(work.claim, None)  # this agent was silent for so long that others may have taken it
        return False

    def give_back_ready(self) -> None:
        """Give back what no seat has begun."""
        while self._pool:
            self._desk.release(self._pool.popleft().claim, None)

    def _look_at_pool(self) -> None:
        now = time.monotonic()
        if not self._pool or now < self._next_look:
            return
        self._next_look = now + _LOOK
        if self._is_closed():
            self.give_back_ready()
        elif not self._has_free_seat:
            self._desk.ask_whether_to_keep(self._share)

    def _share(self, keep: bool) -> None:
        """Where nothing is left to claim, a slot that is free elsewhere may run what waits here for a busy one."""
        if not keep and not self._has_free_seat:
            self.give_back_ready()

    @property
    def _has_free_seat(self) -> bool:
        return any(self._is_free(seat) for seat in self._seats)

    # --- whether trials may be started ---

    def _is_closed(self) -> bool:
        return self._halt.called or self._desk.standing.ended is not None or not self._fits()

    def _fits(self) -> bool:
        """Whether a trial can end within the walltime, or go on after it; a fresh job starts at least one."""
        if self._desk.trials_run == 0 or self._walltime.leaves(self._desk.standing.longest):
            return True
        return newest_file(self._paths.checkpoints) > 0

    # --- what a claim gives ---

    def _prepared(self, seat: Seat, work: Work | Nothing) -> None:
        waits = seat.state is State.CLAIMING
        if isinstance(work, Nothing):
            if waits:
                self._rest(seat, work)
        elif waits and not self._halt.called and self._desk.is_current(work):
            self._start(seat, work)
        else:
            self._desk.release(work.claim, None)
            seat.state = State.IDLE if waits else seat.state

    def _rest(self, seat: Seat, reason: Nothing) -> None:
        """Ask again later where what runs now may still fail, here or (one agent of all waits) elsewhere."""
        stays = bool(self._seats.busy) or reason is Nothing.SOON or self._waiter.won()
        if reason in (Nothing.WAIT, Nothing.SOON) and stays:
            seat.state, seat.retry_at = State.IDLE, time.monotonic() + _POLL
        else:
            seat.retire()
