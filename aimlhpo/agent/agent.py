"""The agent: it runs the trials of one job, in the job's slots, until none is left or it has to stop.

`Agent.run` opens the study and sets up the threads; its loop, in the main thread, waits for workers, for answers from
the storage thread and for signals, and passes each on to who deals with it: the `TrialDispatcher`, the `StorageClient`,
the `StopRequest`.
"""

from __future__ import annotations

import gc
import math
import secrets
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from multiprocessing.connection import Connection, wait
from typing import TYPE_CHECKING

from aimlhpo.agent.dispatcher import TrialDispatcher
from aimlhpo.agent.packing import Packing
from aimlhpo.agent.progress import ProgressMeter
from aimlhpo.agent.stop_requests import LOCAL, AgentJob, SignalTrap, StopRequest, Walltime
from aimlhpo.agent.storage_client import StorageClient
from aimlhpo.agent.trial_store import StudySnapshot, TrialStore
from aimlhpo.agent.worker_pool import WorkerPool
from aimlhpo.errors import StudyFailed
from aimlhpo.ledger.completion import STOPPED_BY_USER
from aimlhpo.ledger.leases import Election, Holder, JobStateQuery, Lease, Registry, verify_shared_locks
from aimlhpo.ledger.ledger import CurrentConfig, Ledger
from aimlhpo.ledger.requests import Outbox
from aimlhpo.search.queues import queue_of
from aimlhpo.search.rungs import Promotion
from aimlhpo.search.sampling import SamplingProcess, needs_process, use_strategies
from aimlhpo.search.stopping import StoppingCriteria, make_rules
from aimlhpo.storage.base import OwnedStorage, own
from aimlhpo.storage.retry import RetryPolicy, SerialExecutor
from aimlhpo.storage.study import load_study
from aimlhpo.tracking.tracker import Tracker
from aimlhpo.worker.devices import Slot

if TYPE_CHECKING:
    import signal
    from collections.abc import Mapping

    import optuna

    from aimlhpo.agent.fork_server import ForkServer
    from aimlhpo.agent.progress import View
    from aimlhpo.config.schema import Config

_TICK = 0.5  # seconds that the loop waits at most
_SWITCH_INTERVAL = 0.0005  # seconds; Python's own 0.005 is waited several times for each trial that ends
_OUTAGE_LIMIT, _OUTAGE_LIMIT_STOPPING = 600.0, 20.0  # seconds that the storage may be away


@dataclass(frozen=True)
class Ending:
    """How an agent ended.

    Attributes:
        snapshot: the study at the end.
        config: its configuration at the end, with what was changed meanwhile.
        trials_run: how many trials the agent has finished.
        cause: None when it began no more trials, else the reason why it stopped before.
        asked_to_end: whether it was asked to end after the trials that it ran.
        out_of_time: whether it began no more because none would have ended within the walltime.
    """

    snapshot: StudySnapshot
    config: Config
    trials_run: int
    cause: str | None = None
    asked_to_end: bool = False
    out_of_time: bool = False


class Agent:
    """Runs trials in `slots` until the budget is finished, a signal comes, or the study has to be given up.

    Args:
        causes: the signals to stop for, with the causes that they stand for.
        job: the SLURM job that it runs in.
        query_job_state: asks the cluster about the jobs of other agents.
        explain_cause: makes such a cause more exact when the signal has come.
        fork_server: the process that has loaded the objective, if the command has started one; the agent closes it.

    Runs in: the main thread.
    """

    def __init__(
        self,
        config: Config,
        slots: Sequence[Slot],
        view: View,
        *,
        causes: Mapping[signal.Signals, str] = LOCAL,
        job: AgentJob | None = None,
        query_job_state: JobStateQuery = lambda holder: None,
        explain_cause: Callable[[str], str] = str,
        fork_server: ForkServer | None = None,
    ) -> None:
        self._config, self._view, self._causes = config, view, causes
        self._current = CurrentConfig(config)
        self._holder = Holder(secrets.token_hex(4), job=job.id if job else None, restarts=job.restarts if job else 0)
        self._walltime = Walltime(job.deadline if job else None)
        self._query_job_state, self._explain_cause = query_job_state, explain_cause
        self._pool = WorkerPool(config, self._holder.agent, slots, fork_server)
        self._stop = StopRequest()
        self._meter = ProgressMeter()
        self._next_reap = 0.0
        self._has_stopped = False
        self._sampling_process: SamplingProcess | None = None

    def run(self) -> Ending:
        """Run to the end. Raises ObjectiveError, StudyFailed or StorageError when the study cannot go on."""
        config, holder = self._config, self._holder
        options, paths = config.optuna, config.paths
        paths.create()
        with ExitStack() as stack:
            stack.enter_context(self._pool)
            retry = self._make_retry_policy()
            study, storage = open_study(config, retry)
            ledger = make_ledger(self._current, study, holder, self._query_job_state)
            self._trap = stack.enter_context(SignalTrap(self._causes))
            lease = self._lease = stack.enter_context(Lease(paths.leases, holder, options.grace_period))
            verify_shared_locks(paths.leases, holder, options.grace_period)
            waiter = stack.enter_context(Election(paths.state / "waiter.lock"))
            self._tracker = stack.enter_context(Tracker(config, holder.agent, self._view.log))
            executor = stack.enter_context(SerialExecutor("storage", retry))
            sampling = None
            if needs_process(study.sampler):
                self._sampling_process = SamplingProcess(config, str(study.sampler))
                self._sampling_process.start()
                sampling_executor = stack.enter_context(SerialExecutor("sampling", self._make_retry_policy()))
                stack.callback(self._sampling_process.close)
                sampling = sampling_executor, self._sampling_process
            self._storage = StorageClient(
                TrialStore(self._current, study, storage, ledger, lease),
                executor,
                Outbox(paths.outbox),
                lease,
                self._view.log,
                slots=len(self._pool),
                strict=options.pruning == "strict",
                sampling=sampling,
            )
            packing = Packing(self._pool, self._view.log) if self._pool.on_demand else None
            work = (self._current, holder, self._pool, self._storage)
            self._dispatcher = TrialDispatcher(*work, self._stop, self._trap, self._walltime, waiter, packing)
            stack.callback(self._pool.end_workers)
            stack.enter_context(short_switch_interval())
            self._loop()
        if self._stop.error is not None:
            raise self._stop.error
        snapshot, run = self._storage.snapshot, self._storage.trials_run
        asked, out_of_time = self._stop.after_trials, self._dispatcher.out_of_time
        return Ending(snapshot, self._current.config, run, self._stop.cause, asked, out_of_time)

    def _make_retry_policy(self) -> RetryPolicy:
        """One for each thread that retries: a pause that `wake` ends must be its own."""
        return RetryPolicy(self._view.log, self._outage_limit)

    def _outage_limit(self) -> float:
        """Seconds to wait for the storage: nothing that trains is given up for it. Asked in the executors' threads."""
        if self._stop.requested:
            return _OUTAGE_LIMIT_STOPPING
        return math.inf if self._pool.busy else _OUTAGE_LIMIT

    def _loop(self) -> None:
        answers = self._storage.filenos()
        self._tick()
        self._pool.start_workers()
        while not ((self._stop.requested or self._pool.all_retired) and self._storage.is_idle()):
            self._dispatcher.fill_slots()
            sources: list[Connection | int] = [*answers, self._trap.fileno(), *self._dispatcher.connections()]
            for source in wait(sources, timeout=self._storage.rest or _TICK):
                if source in answers:
                    self._storage.deliver()
                elif source == self._trap.fileno():
                    self._trap.clear()
                    self._stop.request(self._explain_cause(self._trap.cause or STOPPED_BY_USER))
                else:
                    self._dispatcher.hear(source)
                self._stop_if_requested()
            self._tick()
            self._stop_if_requested()
        self._pool.end_workers()
        self._dispatcher.give_back_ready()
        self._storage.close()
        while not self._storage.is_idle():
            self._storage.flush()
            wait(answers, timeout=self._storage.rest or _TICK)
            self._storage.deliver()
        self._give_up_if_failed()
        self._show()
        self._tracker.finish(self._stop.cause)

    def _tick(self) -> None:
        """What time brings: dead agents, a new snapshot, dead workers, the study given up, the end of the job."""
        now = time.monotonic()
        if now >= self._next_reap:
            self._next_reap = now + self._config.optuna.grace_period / 4
            self._storage.reap()
        self._storage.refresh()
        if self._lease.asked_to_end and not self._stop.after_trials:
            self._stop.after_trials = True
            self._view.log("ending after the trials that run, as `aimlhpo stop --jobs` has asked")
        self._dispatcher.check_workers()
        self._give_up_if_failed()
        if self._walltime.is_over():
            self._stop.request("walltime")
        self._tracker.poll()
        self._show()

    def _give_up_if_failed(self) -> None:
        """Stop because too many trials in a row have failed, on whichever agents."""
        ended = self._storage.snapshot.ended
        if ended is not None and ended.is_failure and not self._stop.requested:
            limit = self._current.config.optuna.max_consecutive_failures
            self._stop.give_up(
                StudyFailed(
                    f"{ended.reason} (max_consecutive_failures is {limit}), so the study was stopped.\n"
                    "    `aimlhpo status --failed` lists them with their causes and logs.\n"
                    "    When the objective is mended, the same command goes on (`optimize` with reload: 1)."
                )
            )

    def _stop_if_requested(self) -> None:
        """End all workers and give their trials back, once."""
        cause = self._stop.cause
        if cause is None or self._has_stopped:
            return
        self._has_stopped = True
        self._storage.wake()
        if self._sampling_process is not None:
            self._sampling_process.close()
        self._view.log(f"stopping: {cause}")
        self._pool.end_workers()
        self._dispatcher.stop(cause)

    def _show(self) -> None:
        slots = (slot.show() for slot in self._pool.slots if not slot.is_closed)
        budget = self._current.config.optuna.n_trials
        self._view.update(self._meter.progress(self._storage.snapshot, budget, slots))


@contextmanager
def short_switch_interval() -> Iterator[None]:
    """Have Python switch threads so often that the main thread answers at once; undo `gc.freeze` at the end."""
    usual = sys.getswitchinterval()
    sys.setswitchinterval(_SWITCH_INTERVAL)
    try:
        yield
    finally:
        gc.unfreeze()
        sys.setswitchinterval(usual)


def open_study(config: Config, retry: RetryPolicy) -> tuple[optuna.Study, OwnedStorage]:
    """The study with its sampler and its pruner, on a storage that remembers what this agent holds.

    Raises ConfigError, or StorageError when an outage outlasts what `retry` allows.
    """
    study = retry.run(partial(load_study, config))
    use_strategies(study, config)
    study._storage = storage = own(study._storage)
    return study, storage


def make_ledger(current: CurrentConfig, study: optuna.Study, holder: Holder, query_job_state: JobStateQuery) -> Ledger:
    """The ledger for the agent that `holder` names; `query_job_state` asks the cluster about other agents' jobs."""
    config = current.config
    options, leases = config.optuna, config.paths.leases
    return Ledger(
        study,
        config.paths,
        options.n_trials,
        holder.agent,
        Registry(leases, options.grace_period, holder, query_job_state),
        max_retries=options.max_retries,
        max_interruptions=options.max_interruptions,
        queue=queue_of(study, config),
        stopping_criteria=StoppingCriteria(study, make_rules(study, config)),
        promotion=Promotion.of(study, options.reported_metric),
        current=current,
    )
