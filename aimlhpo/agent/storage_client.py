"""What gathers for the clerk between two of its turns, so that one write does for all of it.
Which worker reports on which trial, and what it was told of pruning.
The agent's desk: what the main thread hands to the clerk, and what it learns of the study in return.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Any

from aimlhpo.agent.request_buffer import BegunTrial, EndedTrial, PendingRequests, RequestBuffer, SampledTrial
from aimlhpo.agent.storage_thread import SamplingThread, SerialExecutor
from aimlhpo.agent.trial_store import BatchResult, BatchTask, PreparedTrial, StudySnapshot, TrialBuilder, TrialStore
from aimlhpo.errors import StudyFailed
from aimlhpo.ledger.outbox import Outbox, Result
from aimlhpo.ledger.requests import Claim, ClaimRequest, NoTrial, Release, new_token
from aimlhpo.objective.messages import FAIL, Decision, Outcome, Report, Suggested, SuggestRequest, UserAttr
from aimlhpo.search.sampling_process import Suggestion
from aimlhpo.storage.retry import is_outage
from aimlhpo.worker.devices import Slot

if TYPE_CHECKING:
    from aimlhpo.agent.worker_process import WorkerProcess


class PruningNotifier:
    """Tells workers the decisions that change what they know: each of them begins with a trial that goes on.

    A message costs the training in Python more than its report does, because another thread has to receive it. With
    `strict` every decision is told, as the worker waits for it.
    """

    def __init__(self, *, strict: bool) -> None:
        self._strict = strict
        self._workers: dict[int, WorkerProcess] = {}
        self._told: dict[int, bool] = {}

    def heard(self, number: int, worker: WorkerProcess) -> None:
        """The worker has reported on the trial."""
        if self._workers.get(number) is not worker:
            self._workers[number], self._told[number] = worker, False

    def forget(self, number: int) -> None:
        """The attempt is over."""
        self._workers.pop(number, None)
        self._told.pop(number, None)

    def tell(self, decisions: Iterable[Decision]) -> None:
        for decision in decisions:
            worker = self._workers.get(decision.number)
            if worker is not None and (self._strict or decision.prune != self._told[decision.number]):
                self._told[decision.number] = decision.prune
                worker.answer(decision)


Claimant = Callable[[PreparedTrial | NoTrial], None]
"""What follows when a claim has been answered."""

_LOOK_PERIOD = 1.0  # seconds between two looks at the whole study
_PATIENCE = 2.0  # seconds that a look gives way to claims
_REST = 4  # times as long as a turn took, until reports alone are reason enough for another one
_MOST_REST = 0.5  # seconds


class StorageClient:
    """Hands storage work in, in order; none of its calls waits for the storage.

    Attributes:
        standing: the study as it was last seen.
        trials_run: trials that this agent has finished.
    """

    def __init__(
        self,
        books: TrialStore,
        preparing: TrialBuilder,
        clerk: SerialExecutor,
        outbox: Outbox,
        log: Callable[[str], None],
        *,
        repeatable: bool,
        strict: bool = False,
        samplers: SamplingThread | None = None,
    ) -> None:
        self.standing = StudySnapshot()
        self.trials_run = 0
        self._books, self._preparing, self._clerk = books, preparing, clerk
        self._outbox, self._log, self._repeatable, self._samplers = outbox, log, repeatable, samplers
        self._tray = RequestBuffer(strict=strict)
        self._rested_at = 0.0
        self._claimants: dict[str, Claimant] = {}
        self._outcomes: dict[str, tuple[Result, Outcome]] = {}
        self._reporters = PruningNotifier(strict=strict)
        self._held_back: list[EndedTrial] = []
        self._stale, self._refreshing = True, False
        self._reaping = False
        self._next_look = 0.0
        self._told: set[str] = set()

    # --- what goes into the next turn ---

    def claim(self, slot: Slot, then: Claimant) -> None:
        self._wish(ClaimRequest(new_token(), slot.index, slot.label, slot.gpu_share, time.time()), then)

    def claim_ahead(self, then: Claimant) -> None:
        self._wish(ClaimRequest(new_token()), then)

    def _wish(self, wish: ClaimRequest, then: Claimant) -> None:
        self._claimants[wish.token] = then
        self._tray.put(wish)

    def begin(self, work: PreparedTrial, slot: Slot) -> None:
        """A trial that was claimed ahead runs now."""
        self._tray.put(BegunTrial(work.claim, slot, time.time()))

    def report(self, report: Report, worker: WorkerProcess) -> None:
        """Write a report, and tell the worker when it should be pruned."""
        self._reporters.heard(report.number, worker)
        self._tray.put(report)

    def set_user_attr(self, message: UserAttr) -> None:
        self._tray.put(message)

    def hand_in(self, claim: Claim, ended: Result, outcome: Outcome) -> None:
        """Write a trial's end; a result is kept in the outbox until the storage has it."""
        if outcome.state != FAIL:
            self._keep(ended)
        self._reporters.forget(ended.number)
        self._outcomes[ended.token] = ended, outcome
        if self._repeatable and self._claimants:
            self._held_back.append(EndedTrial(claim, ended))
        else:
            self._tray.put(EndedTrial(claim, ended))

    def release(self, claim: Claim, cause: str | None, seconds: float = 0.0) -> None:
        """Give a trial back; without a cause, one that has not begun."""
        self._stale = True
        self._reporters.forget(claim.number)
        self._tray.put(Release(claim, cause, seconds))

    def flush(self) -> None:
        """Have a turn begin with all that has gathered."""
        if (self._tray.is_urgent or self.rest == 0.0) and self._tray.wants_turn():
            self._clerk.submit(BatchTask(self._tray, self._books.turn), self._after_turn)

    @property
    def rest(self) -> float:
        """Seconds until reports are written again: trials that report all the time leave the processors to training."""
        return max(0.0, self._rested_at - time.monotonic())

    @property
    def idle(self) -> bool:
        """Whether all that was handed in has been done and told."""
        return self._clerk.idle and self._tray.is_empty and (self._samplers is None or self._samplers.idle)

    # --- what comes of it ---

    def _after_turn(self, done: BatchResult) -> None:
        self._rested_at = time.monotonic() + min(_REST * done.seconds, _MOST_REST)
        self._reporters.tell(done.decisions)
        for line in done.complaints:
            self._log(line)
        for token, written in done.settled.finished.items():
            self._booked(*self._outcomes.pop(token), written)
        if done.settled.finished:
            self._clerk.submit(self._books.tidy)
        self._stale = self._stale or bool(done.settled.claims)
        self._take_claims(done)
        self._prepared(done.works)

    def _take_claims(self, done: BatchResult) -> None:
        made = [claim for claim in done.settled.claims.values() if isinstance(claim, Claim)]
        # A study's first trials leave a sampler nothing to think about, while its process still loads.
        are_first = any(claim.number == 0 for claim in made)
        if made and self._samplers is not None and not are_first:
            self._samplers.ask(made, partial(self._suggested, made, done.term))
        elif made:
            self._clerk.submit(partial(self._prepare, made, done.term), self._prepared)
        for token, claim in done.settled.claims.items():
            if isinstance(claim, NoTrial):
                self._answer_claimant(token, claim)

    def _prepare(self, claims: list[Claim], term: int) -> list[PreparedTrial]:
        try:
            return self._preparing.prepare(claims, term)
        except StudyFailed:
            self._books.turn(PendingRequests(releases=[Release(claim, None) for claim in claims]))
            raise

    def _suggested(self, claims: list[Claim], term: int, suggestions: list[Suggestion] | None) -> None:
        """Have what was suggested written; without suggestions the agent is about to stop."""
        if suggestions is None:
            for claim in claims:
                self.release(claim, None)
                self._answer_claimant(claim.token, NoTrial.WAIT)
            return
        for claim, suggestion in zip(claims, suggestions, strict=True):
            self._tray.put(SampledTrial(claim, suggestion, term))

    def _prepared(self, works: list[PreparedTrial]) -> None:
        for work in works:
            self._answer_claimant(work.claim.token, work)

    def _answer_claimant(self, token: str, answer: PreparedTrial | NoTrial) -> None:
        then = self._claimants.pop(token)
        if not self._claimants:
            # What a single slot's sampler has seen must not depend on how long it took: results wait for it.
            for ended in self._held_back:
                self._tray.put(ended)
            self._held_back = []
        then(answer)

    # --- other work ---

    def is_current(self, work: PreparedTrial) -> bool:
        """Whether a trial that was claimed ahead is still this agent's."""
        return self._books.is_current(work.term)

    def ask_whether_to_keep(self, then: Callable[[bool], None]) -> None:
        """Whether trials that were claimed ahead are better kept than given back."""
        self._clerk.submit(self._books.keeps_ready, then)

    def suggest(self, request: SuggestRequest, worker: WorkerProcess) -> None:
        refused = Suggested(
            error=RuntimeError(f"the storage does not take the parameter {request.arguments['name']!r}")
        )
        job = self._tolerant(request.number, partial(self._suggest, request), refused)
        self._clerk.submit(job, worker.answer)

    def _suggest(self, request: SuggestRequest) -> Suggested:
        claim = self._books.claim_of(request.number)
        if claim is None:
            return Suggested(error=RuntimeError("this trial has been given to another worker"))
        return self._preparing.suggest(claim, request)

    def note_provenance(self, provenance: dict[str, Any]) -> None:
        self._clerk.submit(partial(self._books.note_provenance, provenance))

    def reap(self) -> None:
        """Look for dead agents, once at a time: where many wait for the ledger, more of it would keep out all else."""
        if not self._reaping:
            self._reaping = True
            self._clerk.submit(self._books.reap, self._note_reaped)

    def refresh(self) -> None:
        """Look at the study again where something has changed since; claims go first for a while."""
        late = time.monotonic() - self._next_look
        if self._stale and not self._refreshing and (late >= _PATIENCE or (late >= 0 and not self._claimants)):
            self._stale, self._refreshing = False, True
            self._next_look = time.monotonic() + _LOOK_PERIOD
            self._clerk.submit(self._books.standing, self._note_standing)

    def tell(self, line: str) -> None:
        """Show the user a line."""
        self._log(line)

    def close(self) -> None:
        """Write the results, and look at the study once more."""
        self.flush()
        self._clerk.submit(self._books.write_results)
        self._clerk.submit(partial(self._books.standing, last=True), self._note_standing)

    def _tolerant(self, number: int, job: Callable[[], Any], otherwise: Any) -> Callable[[], Any]:
        """The job, but for what the storage refuses for good: that costs the value, and a line, not the agent."""

        def attempt() -> Any:
            try:
                return job()
            except Exception as error:
                if is_outage(error):
                    raise
                self._log(f"trial {number}: the storage refused a value: {type(error).__name__}: {error}"[:300])
                return otherwise

        return attempt

    def _keep(self, ended: Result) -> None:
        try:
            self._outbox.put(ended)
        except OSError as error:
            self._log(f"trial {ended.number}: its result is in memory alone until the storage has it ({error})")

    def _booked(self, ended: Result, outcome: Outcome, written: bool) -> None:
        self._stale = True
        with suppress(OSError):  # left there, it is delivered again, to no effect
            self._outbox.remove(ended.token)
        self._preparing.forget(ended.number)
        if not written:
            self._log(f"trial {ended.number}: others took it over while this agent was silent; result dropped")
            return
        self.trials_run += 1
        if outcome.state == FAIL:
            self._log(f"trial {ended.number} failed: {outcome.cause} ({ended.record['log']})")
        else:
            self._tell_unread(ended.number, outcome.unread)

    def _tell_unread(self, number: int, names: list[str]) -> None:
        for name in sorted(set(names) - self._told):
            self._told.add(name)
            self._log(f"parameter {name!r}: nothing read it in trial {number}; it has no effect")

    def _note_reaped(self, numbers: list[int]) -> None:
        self._reaping = False
        if numbers:
            self._stale = True
            self._log(f"trials given back because their agents are gone: {', '.join(map(str, numbers))}")

    def _note_standing(self, standing: StudySnapshot) -> None:
        self.standing, self._refreshing = standing, False
