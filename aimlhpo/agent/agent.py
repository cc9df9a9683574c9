"""The agent's main thread: it seats a worker in every slot, keeps them busy, and ends in good order."""

from __future__ import annotations

import math
import secrets
import time
from collections.abc import Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from functools import partial
from multiprocessing.connection import Connection, wait
from typing import TYPE_CHECKING

from aimlhpo.agent.bookkeeper import Bookkeeper, Standing, Work
from aimlhpo.agent.clerk import Clerk
from aimlhpo.agent.desk import Desk
from aimlhpo.agent.memory import OUT_OF_MEMORY, after_out_of_memory
from aimlhpo.agent.process import WorkerProcess
from aimlhpo.agent.progress import Pace
from aimlhpo.agent.records import provenance_id, result
from aimlhpo.agent.seat import Running, Seat, State, shares_gpu
from aimlhpo.agent.signals import LOCAL, SignalTrap
from aimlhpo.agent.waiter import Waiter
from aimlhpo.agent.walltime import Job, Walltime
from aimlhpo.backends import own
from aimlhpo.command.spec import command_spec
from aimlhpo.devices import Slot
from aimlhpo.errors import AimlhpoError, ObjectiveError, StudyFailed
from aimlhpo.grid import queue_of, sampler_of
from aimlhpo.interruptions import newest_file
from aimlhpo.leases import Holder, Lease, Registry, Word
from aimlhpo.ledger import Ledger, Nothing
from aimlhpo.lock_check import verify_shared_locks
from aimlhpo.outbox import Outbox
from aimlhpo.patience import Patience
from aimlhpo.protocol import (
    FAIL,
    Finished,
    LoadFailed,
    Outcome,
    Ready,
    Report,
    Setup,
    StudyInfo,
    SuggestRequest,
    UserAttr,
)  # fmt: skip
from aimlhpo.storage import load_study
from aimlhpo.strategies import make_pruner

if TYPE_CHECKING:
    import signal
    from collections.abc import Mapping

    from aimlhpo.config import Config
    from aimlhpo.launch.view import View

_TICK = 0.5  # seconds between two looks at the clock
_POLL = 1.0  # seconds until a slot asks again when all that is left is running elsewhere
_SIGNAL_PATIENCE = 1.0  # seconds for a signal that has reached a worker to reach the agent, too
_TERM_PATIENCE = 5.0  # seconds that a worker has between SIGTERM and SIGKILL
_IDLE_PATIENCE, _STOPPING_PATIENCE = 600.0, 20.0  # seconds that the storage may be away
_MOST_EARLY_DEATHS = 3  # in a row, of the workers of one slot, while none of the agent's has ever been ready
_MOST_LATER_DEATHS = 20  # the same, where one has: then the objective can be loaded, and the deaths may be chance


@dataclass(frozen=True)
class Ending:
    """How an agent ended: `cause` is None when no trial was left to claim, else the reason it stopped before."""

    standing: Standing
    trials_run: int
    cause: str | None = None


class Agent:
    """Runs trials in `slots` until the budget is finished, a signal comes, or the study has to be given up."""

    def __init__(
        self,
        config: Config,
        slots: Sequence[Slot],
        view: View,
        *,
        name: str | None = None,
        causes: Mapping[signal.Signals, str] = LOCAL,
        job: Job | None = None,
        word: Word = lambda holder: None,
    ) -> None:
        self._config, self._slots, self._view = config, slots, view
        self._holder = Holder(
            name or secrets.token_hex(4), job=job.id if job else None, restarts=job.restarts if job else 0
        )
        self._walltime = Walltime(job.deadline if job else None)
        self._word = word
        self._causes = causes
        self._seats: list[Seat] = []
        self._pace = Pace(config.optuna.n_trials)
        self._next_reap = 0.0
        self._ready_once = False
        self._stop_cause: str | None = None
        self._error: AimlhpoError | None = None

    def run(self) -> Ending:
        """Run to the end. Raises ObjectiveError, StudyFailed or StorageError when the study cannot go on."""
        options, paths = self._config.optuna, self._config.paths
        paths.create()
        sampler, pruner = sampler_of(self._config), make_pruner(options.pruner)
        patience = Patience(self._view.log, self._patience)
        study = patience.run(partial(load_study, self._config, sampler=sampler, pruner=pruner))
        study._storage = storage = own(study._storage)
        registry = Registry(paths.leases, options.grace_period, self._holder, self._word)
        queue = queue_of(study, self._config)
        ledger = Ledger(study, paths, options.n_trials, self._holder.agent, registry, options.max_retries, queue)
        with ExitStack() as stack:
            self._trap = stack.enter_context(SignalTrap(self._causes))
            lease = stack.enter_context(Lease(paths.leases, self._holder, options.grace_period))
            verify_shared_locks(paths.leases, self._holder, options.grace_period)
            self._waiter = stack.enter_context(Waiter(paths.state / "waiter.lock"))
            self._clerk = stack.enter_context(Clerk(patience))
            books = Bookkeeper(self._config, study, storage, ledger, lease)
            self._desk = Desk(books, self._clerk, Outbox(paths.outbox), self._view.log)
            stack.callback(self._end_workers)
            self._loop()
        if self._error is not None:
            raise self._error
        return Ending(self._desk.standing, self._desk.trials_run, self._stop_cause)

    # --- the loop ---

    def _loop(self) -> None:
        self._tick()
        self._seats = [Seat(slot, self._start_worker) for slot in self._slots]
        while not self._over():
            self._step()
        self._end_workers()
        self._desk.close()
        while not self._clerk.idle:
            wait([self._clerk.fileno()])
            self._clerk.deliver()
        self._show()

    def _step(self) -> None:
        for seat in self._seats:
            if seat.state is State.IDLE:
                self._employ(seat)
        for source in wait(self._sources(), timeout=_TICK):
            self._serve(source)
        self._tick()

    def _over(self) -> bool:
        ended = self._stop_cause is not None or all(seat.state is State.RETIRED for seat in self._seats)
        return ended and self._clerk.idle

    def _sources(self) -> list[Connection | int]:
        connections = [seat.worker.connection for seat in self._seats if seat.state is not State.RETIRED]
        return [self._clerk.fileno(), self._trap.fileno(), *connections]

    def _serve(self, source: object) -> None:
        if source == self._clerk.fileno():
            self._clerk.deliver()
        elif source == self._trap.fileno():
            self._trap.clear()
            self._stop(self._trap.cause or "stopped by user")
        else:
            for seat in self._seats:
                if seat.worker.connection is source and seat.state is not State.RETIRED:
                    self._listen(seat)

    def _tick(self) -> None:
        now = time.monotonic()
        if now >= self._next_reap:
            self._next_reap = now + self._config.optuna.grace_period / 4
            self._desk.reap()
        self._desk.refresh()
        self._stop_overdue_trials()
        self._stop_failing_study()
        if self._walltime.is_over():
            self._stop("walltime")
        self._show()

    # --- claiming ---

    def _employ(self, seat: Seat) -> None:
        neighbours = [other for other in self._seats if shares_gpu(seat, other)]
        if seat.for_itself is not None:
            if not any(other.is_occupied for other in neighbours):
                work, seat.for_itself = seat.for_itself, None
                seat.assign(work, alone=True)
        elif time.monotonic() >= seat.retry_at and not any(other.wants_to_be_alone for other in neighbours):
            self._claim_for(seat)

    def _claim_for(self, seat: Seat) -> None:
        if self._stop_cause is not None or self._time_is_up() or not self._fits():
            seat.retire()
            return
        seat.state = State.CLAIMING
        self._desk.claim(seat.slot, partial(self._prepared, seat))

    def _time_is_up(self) -> bool:
        timeout = self._config.optuna.timeout
        return timeout is not None and time.time() - self._desk.study_started > timeout

    def _fits(self) -> bool:
        """Whether a trial can end within the walltime, or go on after it; a fresh job starts at least one."""
        if self._desk.trials_run == 0 or self._walltime.leaves(self._desk.standing.longest):
            return True
        return newest_file(self._config.paths.checkpoints) > 0

    def _prepared(self, seat: Seat, work: Work | Nothing) -> None:
        if isinstance(work, Work):
            if self._stop_cause is not None or seat.state is not State.CLAIMING:
                self._desk.release(work.claim, self._stop_cause or "its worker died")
            else:
                seat.assign(work)
        elif seat.state is State.CLAIMING:
            self._rest(seat, work)

    def _rest(self, seat: Seat, reason: Nothing) -> None:
        """Ask again later where what runs now may still fail, here or (one agent of all waits) elsewhere."""
        busy = any(other.state is State.BUSY for other in self._seats)
        if reason is Nothing.WAIT and (busy or self._waiter.elected()):
            seat.state, seat.retry_at = State.IDLE, time.monotonic() + _POLL
        else:
            seat.retire()

    # --- what workers say ---

    def _listen(self, seat: Seat) -> None:
        try:
            message = seat.worker.connection.recv()
        except (EOFError, OSError):
            self._worker_died(seat)
        else:
            self._hear(seat, message)

    def _hear(self, seat: Seat, message: object) -> None:
        match message:
            case Ready():
                seat.state, seat.early_deaths, self._ready_once = State.IDLE, 0, True
                seat.provenance = provenance_id(message.provenance)
                self._desk.note_provenance(message.provenance)
            case LoadFailed():
                self._give_up(ObjectiveError(message.message, message.detail))
            case Report():
                self._take_report(seat, message)
            case SuggestRequest():
                self._desk.suggest(message, seat.worker)
            case UserAttr():
                self._desk.set_user_attr(message)
            case Finished():
                self._finish(seat, message.outcome)

    def _take_report(self, seat: Seat, report: Report) -> None:
        if seat.running is not None:
            seat.running.reports.append(report)
        self._desk.report(report, seat.worker)

    def _finish(self, seat: Seat, outcome: Outcome) -> None:
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
            outcome = after_out_of_memory(outcome, self._config.optuna.on_oom)
        for other in self._seats:
            other.retry_at = 0.0
        self._hand_in(seat, running, outcome)

    def _retries_alone(self, seat: Seat, running: Running) -> bool:
        wanted = self._config.optuna.on_oom == "retry_alone" and not running.alone and self._stop_cause is None
        return wanted and any(shares_gpu(seat, other) for other in self._seats)

    def _hand_in(self, seat: Seat, running: Running, outcome: Outcome) -> None:
        claim = running.work.claim
        where = self._whereabouts(seat, running.log_offset)
        seed = running.work.assignment.seed
        ended = result(self._holder.agent, claim, outcome, where, running.reports, seed)
        self._desk.hand_in(claim, ended, outcome)

    def _is_being_stopped(self) -> bool:
        """Whether a signal has come. SLURM signals a job's processes one by one, and workers may be hit first."""
        patience = _SIGNAL_PATIENCE if self._holder.job is not None else 0.0
        return self._stop_cause is not None or bool(wait([self._trap.fileno()], timeout=patience))

    def _whereabouts(self, seat: Seat, log_offset: int) -> dict[str, object]:
        return {
            "worker": f"{self._holder.host}:{self._holder.agent}:{seat.slot.index}",
            "host": self._holder.host,
            "device": seat.slot.label,
            "log": str(seat.worker.log.relative_to(self._config.paths.save_path)),
            "log_offset": log_offset,
            "provenance": seat.provenance,
        }

    # --- endings of workers and trials ---

    def _start_worker(self, slot: Slot) -> WorkerProcess:
        options = self._config.optuna
        info = StudyInfo(options.study_name, tuple(options.direction), tuple(options.metric))
        setup = Setup(
            options.objective or "", self._config.conf(), slot.device, info, command_spec(self._config), slot.ranks
        )
        return WorkerProcess(slot, setup, self._config.paths.worker_log(self._holder.agent, slot.index))

    def _worker_died(self, seat: Seat) -> None:
        cause = seat.worker.cause_of_death()
        if seat.running is not None:
            self._fail(seat, cause)
        elif seat.state is State.STARTING:
            self._count_early_death(seat, cause)
        seat.replace_worker()

    def _count_early_death(self, seat: Seat, cause: str) -> None:
        seat.early_deaths += 1
        if seat.early_deaths >= (_MOST_LATER_DEATHS if self._ready_once else _MOST_EARLY_DEATHS):
            lines = seat.worker.last_lines(0)
            self._give_up(StudyFailed(f"the worker of {seat.slot.label} ends before it is ready ({cause}):\n{lines}"))

    def _fail(self, seat: Seat, cause: str) -> None:
        """Book the running trial as failed; its worker is dead."""
        if seat.running is not None:
            lines = seat.worker.last_lines(seat.running.log_offset)
            self._finish(seat, Outcome(FAIL, cause=cause, error=lines, seconds=seat.running.seconds))

    def _stop_overdue_trials(self) -> None:
        limit = self._config.optuna.trial_timeout
        for seat in self._seats:
            if limit is not None and seat.running is not None and seat.running.seconds > limit:
                seat.worker.kill()
                self._drain(seat)
                self._fail(seat, "timeout")
                seat.replace_worker()

    def _drain(self, seat: Seat) -> None:
        """Take what a dead worker had still sent: a result among it counts."""
        with suppress(EOFError, OSError):
            while seat.worker.connection.poll():
                self._hear(seat, seat.worker.connection.recv())

    # --- stopping ---

    def _give_up(self, error: AimlhpoError) -> None:
        self._error = self._error or error
        self._stop("study given up")

    def _stop(self, cause: str) -> None:
        """Stop all workers and give their trials back."""
        if self._stop_cause is not None:
            return
        self._stop_cause = cause
        self._view.log(f"stopping: {cause}")
        self._end_workers()
        for seat in self._seats:
            self._drain(seat)
            running = seat.clear()
            if running is not None:
                self._desk.release(running.work.claim, cause, running.seconds)
            if seat.for_itself is not None:
                self._desk.release(seat.for_itself.claim, cause)
            seat.state = State.RETIRED

    def _end_workers(self) -> None:
        for seat in self._seats:
            seat.worker.terminate()
        deadline = time.monotonic() + _TERM_PATIENCE
        for seat in self._seats:
            seat.worker.wait(max(0.0, deadline - time.monotonic()))

    def _patience(self) -> float:
        """Seconds to wait for the storage: nothing that trains is given up for it."""
        if self._stop_cause is not None:
            return _STOPPING_PATIENCE
        return math.inf if any(seat.state is State.BUSY for seat in self._seats) else _IDLE_PATIENCE

    def _stop_failing_study(self) -> None:
        failures, limit = self._desk.standing.failures, self._config.optuna.max_consecutive_failures
        if limit and failures >= limit and self._stop_cause is None:
            self._give_up(StudyFailed(_too_many_failures(failures, limit)))

    def _show(self) -> None:
        self._view.update(self._pace.progress(self._desk.standing, (seat.show() for seat in self._seats)))


def _too_many_failures(failures: int, limit: int) -> str:
    return (
        f"{failures} trials in a row have failed (max_consecutive_failures is {limit}), so the study was stopped.\n"
        "    `aimlhpo status --failed` lists them with their causes and logs.\n"
        "    When the objective is mended, the same command with reload: 1 goes on."
    )
