"""Python's interpreter, set for a process whose main thread must answer at once.
What an agent works on: its study, and the ledger of it.
The agent's main thread: it seats a worker in every slot, keeps them busy, and ends in good order.
"""

from __future__ import annotations

import math
import secrets
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from multiprocessing.connection import Connection, wait
from typing import TYPE_CHECKING

from aimlhpo.agent.dispatcher import Employment, Endings, Hearing
from aimlhpo.agent.progress import ProgressMeter
from aimlhpo.agent.stop_requests import LOCAL, AgentJob, SignalTrap, StopRequest, Walltime
from aimlhpo.agent.storage_client import StorageClient
from aimlhpo.agent.storage_thread import StorageThreads, prompt
from aimlhpo.agent.trial_store import StudySnapshot, TrialBuilder, TrialStore
from aimlhpo.agent.worker_pool import WorkerPool, WorkerStarter
from aimlhpo.errors import StudyFailed
from aimlhpo.ledger.completion import STOPPED_BY_USER
from aimlhpo.ledger.leases import Election, Holder, JobStateQuery, Lease, Registry, verify_shared_locks
from aimlhpo.ledger.ledger import Ledger
from aimlhpo.ledger.outbox import Outbox
from aimlhpo.search.asha import Promotion
from aimlhpo.search.bounded import sampler_of
from aimlhpo.search.building import make_pruner
from aimlhpo.search.grid import queue_of
from aimlhpo.search.stopping import make_stopping_criteria
from aimlhpo.storage.owned import OwnedStorage, own
from aimlhpo.storage.retry import RetryPolicy
from aimlhpo.storage.study import STUDY_ATTR, load_study
from aimlhpo.tracking.tracker import Tracker
from aimlhpo.worker.devices import Slot

if TYPE_CHECKING:
    import signal
    from collections.abc import Mapping

    import optuna

    from aimlhpo.agent.progress import View
    from aimlhpo.config.schema import Config


def open_study(config: Config, patience: RetryPolicy) -> tuple[optuna.Study, OwnedStorage]:
    """The study with its sampler and its pruner, on a storage that remembers what this agent holds.

    Raises ConfigError, or StorageError when an outage outlasts the patience.
    """
    study = patience.run(partial(load_study, config, pruner=make_pruner(config.optuna.pruner)))
    study.sampler = sampler_of(config, study.user_attrs[STUDY_ATTR]["seed"])
    study._storage = storage = own(study._storage)
    return study, storage


def make_ledger(config: Config, study: optuna.Study, holder: Holder, word: JobStateQuery) -> Ledger:
    """The ledger for the agent that `holder` names; `word` is the cluster's on other agents."""
    options, leases = config.optuna, config.paths.leases
    return Ledger(
        study,
        config.paths,
        options.n_trials,
        holder.agent,
        Registry(leases, options.grace_period, holder, word),
        max_retries=options.max_retries,
        max_interruptions=options.max_interruptions,
        queue=queue_of(study, config),
        stops=make_stopping_criteria(study, config),
        promotion=Promotion.of(study, options.reported_metric),
    )


_TICK = 0.5  # seconds between two looks at the clock
_IDLE_PATIENCE, _STOPPING_PATIENCE = 600.0, 20.0  # seconds that the storage may be away


@dataclass(frozen=True)
class Ending:
    """How an agent ended: `cause` is None when no trial was left to claim, else the reason it stopped before."""

    standing: StudySnapshot
    trials_run: int
    cause: str | None = None


class Agent:
    """Runs trials in `slots` until the budget is finished, a signal comes, or the study has to be given up.

    `causes` are what signals mean; `why` makes the most of such a cause when one has come.
    """

    def __init__(
        self,
        config: Config,
        slots: Sequence[Slot],
        view: View,
        *,
        name: str | None = None,
        causes: Mapping[signal.Signals, str] = LOCAL,
        job: AgentJob | None = None,
        word: JobStateQuery = lambda holder: None,
        why: Callable[[str], str] = str,
    ) -> None:
        self._config, self._view = config, view
        self._holder = Holder(
            name or secrets.token_hex(4), job=job.id if job else None, restarts=job.restarts if job else 0
        )
        self._walltime = Walltime(job.deadline if job else None)
        self._word, self._why = word, why
        self._causes = causes
        self._workforce = WorkerStarter(config, self._holder.agent, slots)
        self._seats = WorkerPool(slots, self._workforce.start)
        self._halt = StopRequest()
        self._pace = ProgressMeter(config.optuna.n_trials)
        self._next_reap = self._next_look = 0.0
        self._stopped = False
        self._patience = RetryPolicy(view.log, self._seconds_of_patience)

    def run(self) -> Ending:
        """Run to the end. Raises ObjectiveError, StudyFailed or StorageError when the study cannot go on."""
        self._config.paths.create()
        with self._workforce:
            return self._run()

    def _run(self) -> Ending:
        config, leases, grace = self._config, self._config.paths.leases, self._config.optuna.grace_period
        study, storage = open_study(config, self._patience)
        ledger = make_ledger(config, study, self._holder, self._word)
        with ExitStack() as stack:
            self._trap = stack.enter_context(SignalTrap(self._causes))
            lease = stack.enter_context(Lease(leases, self._holder, grace))
            verify_shared_locks(leases, self._holder, grace)
            waiter = stack.enter_context(Election(config.paths.state / "waiter.lock"))
            self._tracker = stack.enter_context(Tracker(config, self._holder.agent, self._view.log))
            self._staff = stack.enter_context(StorageThreads(config, study.sampler, self._patience))
            preparing = TrialBuilder(config, study, storage)
            self._open_desk(TrialStore(config, study, storage, ledger, lease, preparing), preparing, waiter)
            stack.callback(self._seats.end_workers)
            stack.enter_context(prompt())
            self._loop()
        if self._halt.error is not None:
            raise self._halt.error
        return Ending(self._desk.standing, self._desk.trials_run, self._halt.cause)

    def _open_desk(self, books: TrialStore, preparing: TrialBuilder, waiter: Election) -> None:
        """The desk, and those who stand between it and the seats."""
        config, seats, halt, staff = self._config, self._seats, self._halt, self._staff
        self._desk = desk = StorageClient(
            books,
            preparing,
            staff.clerk,
            Outbox(config.paths.outbox),
            self._view.log,
            repeatable=len(seats) == 1,
            strict=config.optuna.pruning == "strict",
            samplers=staff.samplers,
        )
        self._employment = Employment(config, seats, desk, halt, self._walltime, waiter)
        self._endings = Endings(config, self._holder, seats, desk, self._employment, halt, self._trap)
        self._hearing = Hearing(seats, desk, self._endings, halt, config.optuna.trial_timeout)

    # --- the loop ---

    def _loop(self) -> None:
        self._tick()
        self._seats.fill()
        while not self._over():
            self._step()
        self._seats.end_workers()
        self._employment.give_back_ready()
        self._desk.close()
        while not self._desk.idle:
            self._desk.flush()
            wait(self._staff.filenos(), timeout=self._desk.rest or _TICK)
            self._staff.deliver()
        self._show()
        self._tracker.finish(self._halt.cause)

    def _step(self) -> None:
        self._employment.employ_idle()
        for source in wait(self._sources(), timeout=self._desk.rest or _TICK):
            self._serve(source)
            self._stop_if_called()
        self._tick()
        self._stop_if_called()

    def _over(self) -> bool:
        return (self._halt.called or self._seats.all_retired) and self._desk.idle

    def _sources(self) -> list[Connection | int]:
        return [*self._staff.filenos(), self._trap.fileno(), *self._seats.connections()]

    def _serve(self, source: object) -> None:
        if source in self._staff.filenos():
            self._staff.deliver()
        elif source == self._trap.fileno():
            self._trap.clear()
            self._halt.call(self._why(self._trap.cause or STOPPED_BY_USER))
        else:
            for seat in self._seats.heard_on(source):
                self._hearing.listen(seat)

    def _tick(self) -> None:
        now = time.monotonic()
        if now >= self._next_reap:
            self._next_reap = now + self._config.optuna.grace_period / 4
            self._desk.reap()
        self._desk.refresh()
        self._look_for_deaths(now)
        self._hearing.end_overdue_trials()
        self._stop_failing_study()
        if self._walltime.is_over():
            self._halt.call("walltime")
        self._tracker.poll()
        self._show()

    def _look_for_deaths(self, now: float) -> None:
        if now >= self._next_look:
            self._next_look = now + _TICK
            self._hearing.look_for_deaths()

    # --- stopping ---

    def _stop_if_called(self) -> None:
        """Stop all workers and give their trials back."""
        cause = self._halt.cause
        if cause is None or self._stopped:
            return
        self._stopped = True
        self._patience.wake()
        self._staff.stop_sampling()
        self._view.log(f"stopping: {cause}")
        self._seats.end_workers()
        for seat in self._seats:
            self._hearing.drain(seat)
            self._endings.give_back(seat, cause)
        self._employment.give_back_ready()

    def _stop_failing_study(self) -> None:
        failures, limit = self._desk.standing.failures, self._config.optuna.max_consecutive_failures
        if limit and failures >= limit and not self._halt.called:
            self._halt.give_up(StudyFailed(_too_many_failures(failures, limit)))

    def _seconds_of_patience(self) -> float:
        """Seconds to wait for the storage: nothing that trains is given up for it."""
        if self._halt.called:
            return _STOPPING_PATIENCE
        return math.inf if self._seats.busy else _IDLE_PATIENCE

    def _show(self) -> None:
        self._view.update(self._pace.progress(self._desk.standing, (seat.show() for seat in self._seats)))


def _too_many_failures(failures: int, limit: int) -> str:
    return (
        f"{failures} trials in a row have failed (max_consecutive_failures is {limit}), so the study was stopped.\n"
        "    `aimlhpo status --failed` lists them with their causes and logs.\n"
        "    When the objective is mended, the same command with reload: 1 goes on."
    )
