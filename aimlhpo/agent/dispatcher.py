"""What becomes of a trial that ran out of memory.
Whether a finished trial keeps the study's constraints.
Keeps the seats busy: who is given which trial, who asks again later, who needs no worker any more.
How trials end: with a result, with a failure, or given back.
What the workers say, and what their silence says: messages, deaths, trials that run too long.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import partial
from multiprocessing.connection import wait
from typing import TYPE_CHECKING, Any

from aimlhpo.agent.trial_store import PreparedTrial, make_result, provenance_id
from aimlhpo.agent.worker_pool import Running, WorkerSlot, WorkerState
from aimlhpo.agent.worker_process import UnreadableMessage
from aimlhpo.errors import ObjectiveError, StudyFailed
from aimlhpo.ledger.completion import newest_file
from aimlhpo.ledger.requests import NoTrial
from aimlhpo.objective.messages import (
    COMPLETE,
    FAIL,
    PAUSED,
    PRUNED,
    Finished,
    LoadFailed,
    Outcome,
    Ready,
    Report,
    SuggestRequest,
    UserAttr,
)
from aimlhpo.objective.outcome import OutcomeError
from aimlhpo.space.constraints import Constraint, constraint_values, parse_constraints

if TYPE_CHECKING:
    from aimlhpo.agent.stop_requests import SignalTrap, StopRequest, Walltime
    from aimlhpo.agent.storage_client import StorageClient
    from aimlhpo.agent.worker_pool import WorkerPool
    from aimlhpo.config.schema import Config
    from aimlhpo.ledger.leases import Election, Holder

OUT_OF_MEMORY = "out of memory"


def after_out_of_memory(outcome: Outcome, policy: str) -> Outcome:
    """The outcome as `on_oom` wants it; the cause stays with the trial."""
    return replace(outcome, state=PRUNED) if policy == "prune" else outcome


def judge(outcome: Outcome, constraints: Sequence[Constraint], params: Mapping[str, Any]) -> Outcome:
    """The outcome with the value of each constraint; a complete trial that a constraint cannot be computed for fails.

    A metric goes before a parameter of the same name. Pruned trials have no metrics, and so no constraints.
    """
    if not constraints or outcome.state != COMPLETE:
        return outcome
    try:
        return replace(outcome, constraints=constraint_values(constraints, {**params, **outcome.metrics}))
    except OutcomeError as error:
        return replace(outcome, state=FAIL, values=None, cause=error.cause, error=str(error))


_POLL = 1.0  # seconds until a slot asks again when all that is left is running elsewhere
_LOOK = 2.0  # seconds between two looks at whether others could run what was claimed ahead


class Employment:
    """Gives trials to idle seats, for as long as trials may be started.

    Trials that were claimed ahead lie in one pool, as many as seats are busy: whichever seat is free first takes one.
    """

    def __init__(
        self,
        config: Config,
        seats: WorkerPool,
        desk: StorageClient,
        halt: StopRequest,
        walltime: Walltime,
        waiter: Election,
    ) -> None:
        # A paused trial is promoted by what is known when a slot is free, not before.
        self._paths, self._ahead = config.paths, config.optuna.claim_ahead and not config.optuna.promotes
        self._seats, self._desk, self._halt = seats, desk, halt
        self._walltime, self._waiter = walltime, waiter
        self._pool: deque[PreparedTrial] = deque()
        self._asked, self._started = 0, False
        self._next_look = 0.0

    def employ_idle(self) -> None:
        for seat in self._seats:
            if self._is_free(seat):
                self._employ(seat)
        self._ask_ahead()
        self._look_at_pool()
        self._desk.flush()

    def start_ready(self, seat: WorkerSlot) -> None:
        """Give the seat a trial at once where one is ready."""
        if self._is_free(seat) and seat.for_itself is None and not self._is_closed():
            self._take_ready(seat)

    def _is_free(self, seat: WorkerSlot) -> bool:
        """Whether the seat can run a trial now."""
        kept_empty = any(other.wants_to_be_alone for other in self._seats.neighbours(seat))
        return (
            seat.state is WorkerState.IDLE and not seat.worker.gone and (seat.for_itself is not None or not kept_empty)
        )

    def _employ(self, seat: WorkerSlot) -> None:
        if seat.for_itself is not None:
            if not any(other.is_occupied for other in self._seats.neighbours(seat)):
                work, seat.for_itself = seat.for_itself, None
                self._start(seat, work, alone=True)
        elif self._is_closed():
            seat.retire()
        elif not self._take_ready(seat) and self._asked == 0 and time.monotonic() >= seat.retry_at:
            seat.state = WorkerState.CLAIMING  # where something was asked for ahead, that comes soon
            self._desk.claim(seat.slot, partial(self._prepared, seat))

    def _start(self, seat: WorkerSlot, work: PreparedTrial, *, alone: bool = False) -> None:
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

    def _prepared_ahead(self, work: PreparedTrial | NoTrial) -> None:
        self._asked -= 1
        if isinstance(work, PreparedTrial):
            self._pool.append(work)
            self._seats.ask_again()

    def _take_ready(self, seat: WorkerSlot) -> bool:
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

    def _prepared(self, seat: WorkerSlot, work: PreparedTrial | NoTrial) -> None:
        waits = seat.state is WorkerState.CLAIMING
        if isinstance(work, NoTrial):
            if waits:
                self._rest(seat, work)
        elif waits and not self._halt.called and self._desk.is_current(work):
            self._start(seat, work)
        else:
            self._desk.release(work.claim, None)
            seat.state = WorkerState.IDLE if waits else seat.state

    def _rest(self, seat: WorkerSlot, reason: NoTrial) -> None:
        """Ask again later where what runs now may still fail, here or (one agent of all waits) elsewhere."""
        stays = bool(self._seats.busy) or reason is NoTrial.SOON or self._waiter.won()
        if reason in (NoTrial.WAIT, NoTrial.SOON) and stays:
            seat.state, seat.retry_at = WorkerState.IDLE, time.monotonic() + _POLL
        else:
            seat.retire()


_SIGNAL_PATIENCE = 1.0  # seconds for a signal that has reached a worker to reach the agent, too


class Endings:
    """Clears the seats of trials that are over, and hands in what became of them."""

    def __init__(
        self,
        config: Config,
        holder: Holder,
        seats: WorkerPool,
        desk: StorageClient,
        employment: Employment,
        halt: StopRequest,
        trap: SignalTrap,
    ) -> None:
        self._policy, self._paths = config.optuna.on_oom, config.paths
        self._constraints = parse_constraints(config.optuna.constraints)
        self._holder, self._seats, self._desk = holder, seats, desk
        self._employment, self._halt, self._trap = employment, halt, trap
        self._checked_checkpoint = False

    def finish(self, seat: WorkerSlot, outcome: Outcome) -> None:
        """The seat's trial has ended by itself, or with its worker."""
        if outcome.state == FAIL and self._is_being_stopped():
            return  # stopping gives the trial back
        running = seat.clear()
        if running is None:
            return
        if outcome.ends_worker:
            seat.replace_worker()
        if outcome.cause == OUT_OF_MEMORY:
            # Only the end of the process gives all of a GPU's memory back for certain.
            seat.replace_worker()
            if self._retries_alone(seat, running):
                seat.for_itself = running.work
                return
            outcome = after_out_of_memory(outcome, self._policy)
        self._seats.ask_again()
        self._employment.start_ready(seat)  # before anything else: its GPU is idle
        self._hand_in(seat, running, outcome)

    def fail(self, seat: WorkerSlot, cause: str) -> None:
        """Book the running trial as failed; its worker is dead."""
        if seat.running is not None:
            lines = seat.worker.last_lines(seat.running.log_offset)
            self.finish(seat, Outcome(FAIL, cause=cause, error=lines, seconds=seat.running.seconds))

    def give_back(self, seat: WorkerSlot, cause: str) -> None:
        """Retire the seat; what it runs or keeps goes on elsewhere."""
        running = seat.clear()
        if running is not None:
            self._desk.release(running.work.claim, cause, running.seconds)
        if seat.for_itself is not None:
            self._desk.release(seat.for_itself.claim, cause)
        seat.state = WorkerState.RETIRED

    def _retries_alone(self, seat: WorkerSlot, running: Running) -> bool:
        wanted = self._policy == "retry_alone" and not running.alone and not self._halt.called
        return wanted and bool(self._seats.neighbours(seat))

    def _hand_in(self, seat: WorkerSlot, running: Running, outcome: Outcome) -> None:
        claim = running.work.claim
        outcome = judge(outcome, self._constraints, running.work.assignment.values)
        where = self._whereabouts(seat, running.log_offset)
        pause = running.work.assignment.pause
        if outcome.state == PAUSED and pause is not None:
            where["rung"] = pause.rung
            self._mind_checkpoint(claim.number)
        seed = running.work.assignment.seed
        ended = make_result(self._holder.agent, claim, outcome, where, running.reports, seed)
        self._desk.hand_in(claim, ended, outcome)

    def _mind_checkpoint(self, number: int) -> None:
        """Tell once, of the first trial that pauses, where it has left nothing to go on from."""
        if self._checked_checkpoint:
            return
        self._checked_checkpoint = True
        if newest_file(self._paths.checkpoint(number)) == 0.0:
            self._desk.tell(
                f"trial {number} paused without a checkpoint: when it is promoted it begins anew. Save one in "
                "trial.checkpoint_dir before each report, or take mode: stopping"
            )

    def _is_being_stopped(self) -> bool:
        """Whether a signal has come. SLURM signals a job's processes one by one, and workers may be hit first."""
        patience = _SIGNAL_PATIENCE if self._holder.job is not None else 0.0
        return self._halt.called or bool(wait([self._trap.fileno()], timeout=patience))

    def _whereabouts(self, seat: WorkerSlot, log_offset: int) -> dict[str, Any]:
        return {
            "worker": f"{self._holder.host}:{self._holder.agent}:{seat.slot.index}",
            "host": self._holder.host,
            "device": seat.slot.label,
            "gpus": seat.slot.gpu_share,
            "log": str(seat.worker.log.relative_to(self._paths.save_path)),
            "log_offset": log_offset,
            "provenance": seat.provenance,
        }


_MOST_EARLY_DEATHS = 3  # in a row, of the workers of one slot, while none of the agent's has ever been ready
_MOST_LATER_DEATHS = 20  # the same, where one has: then the objective can be loaded, and the deaths may be chance


class Hearing:
    """Hears the workers, and passes on what follows. `trial_timeout` is in seconds."""

    def __init__(
        self, seats: WorkerPool, desk: StorageClient, endings: Endings, halt: StopRequest, trial_timeout: float | None
    ) -> None:
        self._seats, self._desk, self._endings, self._halt = seats, desk, endings, halt
        self._trial_timeout = trial_timeout
        self._ready_once = False

    def listen(self, seat: WorkerSlot) -> None:
        """Take one message, or the worker's end."""
        try:
            message = seat.worker.receive()
        except (EOFError, OSError):
            self._worker_died(seat, seat.worker.cause_of_death())
        except UnreadableMessage as error:
            self._worker_died(seat, str(error))
        else:
            self._hear(seat, message)

    def drain(self, seat: WorkerSlot) -> None:
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
            if seat.state is not WorkerState.RETIRED and (unheard or seat.worker.refused):
                self._worker_died(seat, seat.worker.cause_of_death())

    def end_overdue_trials(self) -> None:
        limit = self._trial_timeout
        for seat in self._seats:
            if limit is not None and seat.running is not None and seat.running.seconds > limit:
                seat.worker.kill()
                self.drain(seat)
                self._endings.fail(seat, "timeout")
                seat.replace_worker()

    def _hear(self, seat: WorkerSlot, message: object) -> None:
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

    def _welcome(self, seat: WorkerSlot, message: Ready) -> None:
        seat.state, seat.early_deaths, self._ready_once = WorkerState.IDLE, 0, True
        seat.provenance = provenance_id(message.provenance)
        self._desk.note_provenance(message.provenance)

    def _take_report(self, seat: WorkerSlot, report: Report) -> None:
        """Nothing is taken of a trial that has ended, whatever its objective has left running."""
        if seat.running is not None and seat.running.work.claim.number == report.number:
            seat.running.reports.append(report)
            self._desk.report(report, seat.worker)

    def _worker_died(self, seat: WorkerSlot, cause: str) -> None:
        seat.worker.kill()  # whatever it has left behind; no trial is given to it
        if seat.running is not None:
            self._endings.fail(seat, cause)
        elif seat.state is WorkerState.STARTING and (seat.worker.has_started or seat.worker.refused):
            self._count_early_death(seat, cause)
        seat.replace_worker()

    def _count_early_death(self, seat: WorkerSlot, cause: str) -> None:
        seat.early_deaths += 1
        if seat.early_deaths >= (_MOST_LATER_DEATHS if self._ready_once else _MOST_EARLY_DEATHS):
            lines = seat.worker.last_lines(0)
            ends = f"the worker of {seat.slot.label} ends before it is ready ({cause}):\n{lines}"
            self._halt.give_up(StudyFailed(ends))
