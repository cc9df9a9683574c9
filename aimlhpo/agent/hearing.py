"""What the workers say, and what their silence says: messages, deaths, trials that run too long."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING

from aimlhpo.agent.process import UnreadableMessage
from aimlhpo.agent.records import provenance_id
from aimlhpo.agent.seat import Seat, State
from aimlhpo.errors import ObjectiveError, StudyFailed
from aimlhpo.protocol import Finished, LoadFailed, Ready, Report, SuggestRequest, UserAttr

if TYPE_CHECKING:
    from aimlhpo.agent.desk import Desk
    from aimlhpo.agent.endings import Endings
    from aimlhpo.agent.halt import Halt
    from aimlhpo.agent.seats import Seats

_MOST_EARLY_DEATHS = 3  # in a row, of the workers of one slot, while none of the agent's has ever been ready
_MOST_LATER_DEATHS = 20  # the same, where one has: then the objective can be loaded, and the deaths may be chance


class Hearing:
    """Hears the workers, and passes on what follows. `trial_timeout` is in seconds."""

    def __init__(self, seats: Seats, desk: Desk, endings: Endings, halt: Halt, trial_timeout: float | None) -> None:
        self._seats, self._desk, self._endings, self._halt = seats, desk, endings, halt
        self._trial_timeout = trial_timeout
        self._ready_once = False

    def listen(self, seat: Seat) -> None:
        """Take one message, or the worker's end."""
        try:
            message = seat.worker.receive()
        except (EOFError, OSError):
            self._worker_died(seat, seat.worker.cause_of_death())
        except UnreadableMessage as error:
            self._worker_died(seat, str(error))
        else:
            self._hear(seat, message)

    def drain(self, seat: Seat) -> None:
        """Take what a dead worker had still sent: a result among it counts."""
        with suppress(EOFError, OSError, UnreadableMessage):
            while seat.worker.connection.poll():
                self._hear(seat, seat.worker.receive())

    def look_for_deaths(self) -> None:
        """Replace workers whose pipe does not tell of their end, and those that the system has refused, now and then.

        A process that the objective forked holds the pipe open.
        """
        for seat in self._seats:
            unheard = seat.worker.has_ended() and not seat.worker.connection.poll()
            if seat.state is not State.RETIRED and (unheard or seat.worker.refused):
                self._worker_died(seat, seat.worker.cause_of_death())

    def end_overdue_trials(self) -> None:
        limit = self._trial_timeout
        for seat in self._seats:
            if limit is not None and seat.running is not None and seat.running.seconds > limit:
                seat.worker.kill()
                self.drain(seat)
                self._endings.fail(seat, "timeout")
                seat.replace_worker()

    def _hear(self, seat: Seat, message: object) -> None:
        match message:
            case Ready():
                self._welcome(seat, message)
            case LoadFailed():
                self._halt.give_up(ObjectiveError(message.message, message.detail))
            case Report():
                self._take_report(seat, message)
            case SuggestRequest():
                self._desk.suggest(message, seat.worker)
            case UserAttr():
                self._desk.set_user_attr(message)
            case Finished():
                self._endings.finish(seat, message.outcome)

    def _welcome(self, seat: Seat, message: Ready) -> None:
        seat.state, seat.early_deaths, self._ready_once = State.IDLE, 0, True
        seat.provenance = provenance_id(message.provenance)
        self._desk.note_provenance(message.provenance)

    def _take_report(self, seat: Seat, report: Report) -> None:
        """Nothing is taken of a trial that has ended, whatever its objective has left running."""
        if seat.running is not None and seat.running.work.claim.number == report.number:
            seat.running.reports.append(report)
            self._desk.report(report, seat.worker)

    def _worker_died(self, seat: Seat, cause: str) -> None:
        seat.worker.kill()  # whatever it has left behind; no trial is given to it
        if seat.running is not None:
            self._endings.fail(seat, cause)
        elif seat.state is State.STARTING and (seat.worker.has_started or seat.worker.refused):
            self._count_early_death(seat, cause)
        seat.replace_worker()

    def _count_early_death(self, seat: Seat, cause: str) -> None:
        seat.early_deaths += 1
        if seat.early_deaths >= (_MOST_LATER_DEATHS if self._ready_once else _MOST_EARLY_DEATHS):
            lines = seat.worker.last_lines(0)
            ends = f"the worker of {seat.slot.label} ends before it is ready ({cause}):\n{lines}"
            self._halt.give_up(StudyFailed(ends))
