"""The main thread's side of the storage: it gathers requests, hands them to the storage thread, spreads the answers.

`StorageClient` is what the main thread calls: no call waits for the storage. Requests gather in a `RequestBuffer` until
the storage thread comes for them (`aimlhpo.agent.trial_store`), so that one write does for all of them.
`PruningNotifier` tells the workers what was decided about their trials.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

from aimlhpo.agent.trial_store import BatchResult, PreparedTrial, Request, SampledTrial, StudySnapshot, TrialStore
from aimlhpo.ledger.requests import Beginning, Claim, ClaimRequest, NoTrial, Outbox, Release, Result
from aimlhpo.objective.messages import Answer, Decision, ReadRequest, Report, SetAttribute, SuggestRequest
from aimlhpo.search.sampling import SamplingProcess, Suggestion
from aimlhpo.storage.base import new_token
from aimlhpo.storage.retry import SerialExecutor
from aimlhpo.worker.devices import Slot

if TYPE_CHECKING:
    from aimlhpo.agent.worker_pool import WorkerProcess
    from aimlhpo.ledger.leases import Lease


class RequestBuffer:
    """What gathers for the storage thread between two batches.

    Some of it is urgent because somebody waits for it. With `strict`, workers wait for decisions on pruning, so that
    reports are urgent, too.

    Runs in: both threads. The main thread puts requests in, the storage thread takes all of them at once: this is the
    one object that both write, under its lock.
    """

    def __init__(self, *, strict: bool = False) -> None:
        self._can_wait = () if strict else (Report, SetAttribute)
        self._requests: list[Request] = []
        self._has_job = self._urgent = False
        self._lock = threading.Lock()

    def put(self, request: Request) -> None:
        with self._lock:
            self._requests.append(request)
            self._urgent = self._urgent or not isinstance(request, self._can_wait)

    @property
    def is_empty(self) -> bool:
        return not self._requests

    def needs_job(self, *, only_urgent: bool) -> bool:
        """Whether a job has to be submitted: there is something here, and no job is on the way to take it."""
        with self._lock:
            needed = (self._urgent if only_urgent else bool(self._requests)) and not self._has_job
            self._has_job = self._has_job or needed
            return needed

    def job(self, process: Callable[[Sequence[Request]], BatchResult]) -> Callable[[], BatchResult]:
        """A job for the storage thread: process all that lies here when it runs.

        When it is repeated, it takes along what has come in since.
        """
        taken: list[Request] = []

        def take_and_process() -> BatchResult:
            with self._lock:
                taken.extend(self._requests)
                self._requests = []
                self._has_job = self._urgent = False
            return process(taken)

        return take_and_process


class PruningNotifier:
    """Tells workers only of decisions that differ from the last one; each of them begins with a trial that goes on.

    A message costs a training loop in Python more than its report does, because another thread has to receive it. With
    `strict` every decision is told, as the worker waits for it.

    Runs in: the main thread.
    """

    def __init__(self, *, strict: bool) -> None:
        self._strict = strict
        self._told: dict[int, tuple[WorkerProcess, bool]] = {}

    def note_report(self, number: int, worker: WorkerProcess) -> None:
        """The worker has reported on the trial."""
        if number not in self._told or self._told[number][0] is not worker:
            self._told[number] = worker, False

    def forget(self, number: int) -> None:
        """This attempt at the trial is over."""
        self._told.pop(number, None)

    def tell(self, decisions: Iterable[Decision]) -> None:
        for decision in decisions:
            if decision.number in self._told:
                worker, prunes = self._told[decision.number]
                if self._strict or decision.prune != prunes:
                    self._told[decision.number] = worker, decision.prune
                    worker.answer(decision)


ClaimCallback = Callable[[PreparedTrial | NoTrial], None]
"""What follows when a claim has been answered."""

_SNAPSHOT_INTERVAL = 1.0  # seconds between two looks at the whole study
_LONGEST_DEFERRAL = 2.0  # seconds that such a look gives way to claims
_REST_FACTOR = 4  # times as long as a batch took, until reports alone are reason enough for another one
_LONGEST_REST = 0.5  # seconds


class StorageClient:
    """Hands requests to the storage thread, in order, and runs what follows from the answers.

    Args:
        store: what does the requests; called in the storage thread only.
        executor: the storage thread.
        outbox: keeps results until the storage has them.
        lease: this agent's.
        log: shows the user a line.
        slots: how many the agent has. With a single one, a sampler with a seed sees the same results at each claim,
            however long it takes.
        strict: whether workers wait for each decision on pruning.
        sampling: the thread that asks the sampling process, and that process; None where the storage thread samples.

    Attributes:
        snapshot: the study as it was last read.
        trials_run: how many trials this agent has finished.

    Runs in: the main thread.
    """

    def __init__(
        self,
        store: TrialStore,
        executor: SerialExecutor,
        outbox: Outbox,
        lease: Lease,
        log: Callable[[str], None],
        *,
        slots: int,
        strict: bool = False,
        sampling: tuple[SerialExecutor, SamplingProcess] | None = None,
    ) -> None:
        self.snapshot = StudySnapshot()
        self.trials_run = 0
        self.log = log
        self._store, self._executor, self._sampling = store, executor, sampling
        self._executors = [executor] if sampling is None else [executor, sampling[0]]
        self._outbox, self._lease, self._slots = outbox, lease, slots
        self._buffer = RequestBuffer(strict=strict)
        self._notifier = PruningNotifier(strict=strict)
        self._rest_until = 0.0
        self._claimants: dict[str, ClaimCallback] = {}  # by token
        self._unstored: dict[str, Result] = {}  # by token
        self._held_back: list[Result] = []
        self._stale, self._reading, self._next_snapshot = True, False, 0.0
        self._reaping = False
        self._told_unread: set[str] = set()
        self._can_ask_process = False
        if sampling is not None:
            sampling[0].submit(partial(sampling[1].sample, ()), self._after_loading)

    # --- what goes into the next batch ---

    def claim(self, slot: Slot | None, callback: ClaimCallback) -> None:
        """Claim the next trial for the slot; None: ahead, for whichever slot is free first.

        The callback gets the trial when it is prepared, or why there is none.
        """
        token = new_token()
        self._claimants[token] = callback
        if slot is None:
            self._buffer.put(ClaimRequest(token))
        else:
            self._buffer.put(ClaimRequest(token, slot.index, slot.label, slot.gpu_share, time.time()))

    def begin(self, prepared: PreparedTrial, slot: Slot) -> None:
        """Note that a trial which was claimed ahead runs now."""
        self._buffer.put(Beginning(prepared.claim, slot.index, slot.label, slot.gpu_share, time.time()))

    def report(self, report: Report, worker: WorkerProcess) -> None:
        """Store a report, and tell the worker when its trial should be pruned."""
        self._notifier.note_report(report.number, worker)
        self._buffer.put(report)

    def set_attribute(self, message: SetAttribute) -> None:
        self._buffer.put(message)

    def finish(self, result: Result) -> None:
        """Store a trial's end. One that is no failure is kept in the outbox before, until the storage has it."""
        if result.state != "FAIL":
            try:
                self._outbox.put(result)
            except OSError as error:
                self.log(f"trial {result.number}: its result is in memory alone until the storage has it ({error})")
        self._notifier.forget(result.number)
        self._unstored[result.token] = result
        if self._slots == 1 and self._claimants:
            self._held_back.append(result)
        else:
            self._buffer.put(result)

    def is_storing(self, result: Result) -> bool:
        """Whether a result that was handed in has not been stored yet."""
        return result.token in self._unstored

    def release(self, claim: Claim, cause: str | None, seconds: float = 0.0) -> None:
        """Give a trial back; without a cause, one that has not begun."""
        self._stale = True
        self._notifier.forget(claim.number)
        self._buffer.put(Release(claim, cause, seconds))

    def flush(self) -> None:
        """Have the storage thread come for what has gathered, where it is urgent or the last batch is long ago."""
        if self._buffer.needs_job(only_urgent=self.rest > 0.0):
            self._executor.submit(self._buffer.job(self._store.process), self._after_batch)

    @property
    def rest(self) -> float:
        """Seconds until reports are written again: trials that report all the time leave the processors to training."""
        return max(0.0, self._rest_until - time.monotonic())

    def is_idle(self) -> bool:
        """Whether all that was handed in has been done, and what follows from it, too."""
        return self._executor.is_idle() and self._buffer.is_empty and not self._claimants

    # --- what comes of it ---

    def filenos(self) -> list[int]:
        """What can be read when there is something to deliver."""
        return [executor.fileno() for executor in self._executors]

    def deliver(self) -> None:
        """Run what follows from the answers that have come. Raises what could not be done."""
        for executor in self._executors:
            executor.deliver()

    def wake(self) -> None:
        """End the pause between two tries during an outage."""
        for executor in self._executors:
            executor.wake()

    def _after_batch(self, done: BatchResult) -> None:
        self._rest_until = time.monotonic() + min(_REST_FACTOR * done.seconds, _LONGEST_REST)
        self._notifier.tell(done.decisions)
        for line in done.complaints:
            self.log(line)
        for token, stored in done.answer.finished.items():
            self._after_result(self._unstored.pop(token), stored)
        if done.answer.finished:
            self._executor.submit(self._store.tidy)
        if done.lost != self.snapshot.lost:  # known before a trial that was lost can be claimed here again
            self.snapshot = replace(self.snapshot, lost=done.lost)
        if done.answer.ended is not None:
            self.snapshot = replace(self.snapshot, ended=done.answer.ended)
        if done.answer.claims:
            self._stale = True
            self._after_claims(done)
        self._hand_out(done.prepared)

    def _after_result(self, result: Result, stored: bool) -> None:
        self._stale = True
        with suppress(OSError):  # left there, it is delivered again, to no effect
            self._outbox.remove(result.token)
        if not stored:
            self.log(f"trial {result.number}: others took it over while this agent was silent; result dropped")
            return
        self.trials_run += 1
        if result.state == "FAIL":
            self.log(f"trial {result.number} failed: {result.record['cause']} ({result.record['log']})")
            return
        for name in sorted(set(result.record["unread"]) - self._told_unread):
            self._told_unread.add(name)
            self.log(f"parameter {name!r}: nothing read it in trial {result.number}; it has no effect")

    def _after_claims(self, done: BatchResult) -> None:
        """Have the parameters of the claimed trials sampled."""
        made = [claim for claim in done.answer.claims.values() if isinstance(claim, Claim)]
        # While the sampling process loads, the storage thread samples a study's first trials, and those claimed ahead
        # with them: there is next to nothing that a sampler could learn from, so it takes no time.
        are_first = not self._can_ask_process and all(claim.number < 2 * self._slots for claim in made)
        if made and self._sampling is not None and not are_first:
            executor, process = self._sampling
            trials = [(claim.trial_id, claim.number) for claim in made]
            executor.submit(partial(process.sample, trials), partial(self._after_sampling, made, done.term))
        elif made:
            self._executor.submit(partial(self._store.prepare, made, done.term), self._hand_out)
        for token, claim in done.answer.claims.items():
            if isinstance(claim, NoTrial):
                self._answer_claimant(token, claim)

    def _after_loading(self, suggestions: list[Suggestion] | None) -> None:
        self._can_ask_process = True

    def _after_sampling(self, claims: list[Claim], term: int, suggestions: list[Suggestion] | None) -> None:
        """Have the suggestions stored; None comes where the agent is about to stop."""
        if suggestions is None:
            for claim in claims:
                self.release(claim, None)
                self._answer_claimant(claim.token, NoTrial.WAIT)
            return
        for claim, suggestion in zip(claims, suggestions, strict=True):
            self._buffer.put(SampledTrial(claim, suggestion, term))

    def _hand_out(self, prepared: Sequence[PreparedTrial]) -> None:
        for trial in prepared:
            self._answer_claimant(trial.claim.token, trial)

    def _answer_claimant(self, token: str, answer: PreparedTrial | NoTrial) -> None:
        callback = self._claimants.pop(token)
        if not self._claimants:
            # What a single slot's sampler has seen must not depend on how long it took: results wait for it.
            for result in self._held_back:
                self._buffer.put(result)
            self._held_back = []
        callback(answer)

    # --- other work ---

    def is_current(self, prepared: PreparedTrial) -> bool:
        """Whether nobody can have taken this trial, because the lease has held since its claim."""
        return self._lease.valid() and self._lease.term == prepared.term

    def ask_whether_to_keep(self, callback: Callable[[bool], None]) -> None:
        """Whether trials that were claimed ahead are better kept than given back."""
        self._executor.submit(self._store.keeps_ready, callback)

    def answer(self, request: SuggestRequest | ReadRequest, worker: WorkerProcess) -> None:
        """Answer what the worker asks for."""

        def send(answered: tuple[Answer, str | None]) -> None:
            answer, complaint = answered
            if complaint is not None:
                self.log(complaint)
            worker.answer(answer)

        self._executor.submit(partial(self._store.answer, request), send)

    def note_provenance(self, provenance_id: str, provenance: dict[str, Any]) -> None:
        """Keep what the trials run on, under its id."""
        self._executor.submit(partial(self._store.note_provenance, provenance_id, provenance))

    def reap(self) -> None:
        """Look for dead agents, once at a time: where many wait for the ledger, more of it would keep out all else."""

        def reaped(numbers: list[int]) -> None:
            self._reaping, self._stale = False, True  # the study may have been changed, too
            if numbers:
                self.log(f"trials given back because their agents are gone: {', '.join(map(str, numbers))}")

        if not self._reaping:
            self._reaping = True
            self._executor.submit(self._store.reap, reaped)

    def refresh(self) -> None:
        """Read the study again where something has changed since; claims go first for a while."""
        late = time.monotonic() - self._next_snapshot
        due = late >= _LONGEST_DEFERRAL or (late >= 0 and not self._claimants)
        if self._stale and not self._reading and due:
            self._stale, self._reading = False, True
            self._next_snapshot = time.monotonic() + _SNAPSHOT_INTERVAL
            self._executor.submit(self._store.snapshot, self._after_snapshot)

    def _after_snapshot(self, snapshot: StudySnapshot) -> None:
        self.snapshot, self._reading = snapshot, False

    def close(self) -> None:
        """Write the results, and read the study once more."""
        self.flush()
        self._executor.submit(self._store.write_results)
        self._executor.submit(partial(self._store.snapshot, last=True), self._after_snapshot)
