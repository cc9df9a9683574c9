"""The ledger of one study, as one agent sees it: it decides who runs which trial.

Each call takes the ledger's lock (a file), reads the study's overview, decides on all requests of a batch one after
another, and writes what follows at once. A slot gets a trial that may be promoted, an interrupted or enqueued one, a
new one, or none. Everything here runs in the agent's storage thread.

Each overview holds what has been changed in the study's configuration while it runs (`changes`): the `CurrentConfig`
takes it up, so that no claim after a change is decided by an old number.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from functools import cache, cached_property, partial
from typing import Any

import optuna
from optuna.trial import TrialState, create_trial

from aimlhpo.config.load import with_values
from aimlhpo.config.optuna_section import MOST_FRUITLESS
from aimlhpo.config.paths import StudyPaths
from aimlhpo.config.schema import Config
from aimlhpo.ledger.completion import Completion
from aimlhpo.ledger.leases import Registry
from aimlhpo.ledger.requests import (
    Beginning,
    Claim,
    ClaimRequest,
    LedgerAnswer,
    LedgerBatch,
    NoTrial,
    Outbox,
    Result,
)
from aimlhpo.search.queues import TrialQueue
from aimlhpo.search.rungs import Promotion
from aimlhpo.search.sampling import last_report
from aimlhpo.search.stopping import StoppingCriteria, StopReason, make_rules
from aimlhpo.storage.base import (
    CLAIM,
    PAUSED,
    SECTION,
    Counts,
    OpenTrial,
    Overview,
    OwnedStorage,
    PendingState,
    SetStart,
    SetState,
    SetSystemAttr,
    count_overview,
    own,
)
from aimlhpo.storage.locks import locked
from aimlhpo.storage.retry import is_outage
from aimlhpo.storage.trials import count_imported


class CurrentConfig:
    """The configuration of a running study as it is now.

    Runs in: the storage thread takes up changes; every thread may read `config`, which is replaced as a whole.

    Attributes:
        config: what this agent was started with, and the changes since.
        version: grows with each change of the study, also with one that brings back what was there before: meanwhile
            trials may have been given back.
    """

    def __init__(self, config: Config) -> None:
        self.config = self._at_start = config
        self.version = 0
        self._changes: Sequence[Mapping[str, Any]] = ()

    def take_up(self, changes: Sequence[Mapping[str, Any]]) -> bool:
        """Take up the changes of an overview. Returns whether there are any that this agent did not know of."""
        if len(changes) == len(self._changes):  # changes are added, and none is ever taken away
            return False
        self._changes = changes
        self.config = with_values(self._at_start, {change["key"]: change["value"] for change in changes})
        self.version += 1
        return True


class Ledger:
    """Claims, finishes and releases the trials of one study for one agent.

    Args:
        n_trials: how many trials must end COMPLETE or PRUNED; None: as many as the queue gives.
        agent: the name of the agent.
        registry: judges which agents are dead.
        max_retries: how often a failed trial is tried again.
        max_interruptions: how many interruptions in a row without progress make a trial fail.
        queue: what gives the study its trials, where its sampler makes none up.
        current: the study's configuration, for an agent, which takes up what is changed in it while the study runs.

    Runs in: the storage thread.
    """

    def __init__(
        self,
        study: optuna.Study,
        paths: StudyPaths,
        n_trials: int | None,
        agent: str,
        registry: Registry,
        max_retries: int = 0,
        max_interruptions: int = MOST_FRUITLESS,
        queue: TrialQueue | None = None,
        stopping_criteria: StoppingCriteria | None = None,
        promotion: Promotion | None = None,
        current: CurrentConfig | None = None,
    ) -> None:
        self._study, self._lock_file, self._agent, self._registry = study, paths.lock, agent, registry
        storage = study._storage
        self._storage = storage if isinstance(storage, OwnedStorage) else own(storage)
        self._backend, self._n_trials = self._storage.backend, n_trials
        self._completion = Completion(study, self._storage, paths, max_retries, max_interruptions)
        self._queue, self._promotion, self._current = queue, promotion, current
        self._unconfirmed = False  # whether a change may have taken claims that this agent still counts on
        self._set_rules(stopping_criteria, max_retries)
        self._outbox = Outbox(paths.outbox)

    def _set_rules(self, stopping_criteria: StoppingCriteria | None, max_retries: int) -> None:
        self._stopping_criteria = stopping_criteria
        reads_results = stopping_criteria is not None and stopping_criteria.reads_trials
        self._claims_read_results = reads_results or self._promotion is not None or max_retries > 0

    def process(self, batch: LedgerBatch) -> LedgerAnswer:
        """Decide on all requests, and write what follows at once. Safe to repeat: tokens tell what was done before.

        Where a value is refused, nothing of the batch is written, and the error is raised.
        """
        failed = any(result.state == TrialState.FAIL.name for result in batch.results)
        with locked(self._lock_file):
            if not (batch.claim_requests and (failed or (batch.results and self._claims_read_results))):
                answer = self._process(batch)
            else:
                written = self._process(replace(batch, claim_requests=()))
                claimed = self._process(LedgerBatch(claim_requests=batch.claim_requests))
                answer = LedgerAnswer.of([written, claimed])
            if failed and answer.ended is None:
                answer.ended = self._stop_reason(self._overview())
            return answer

    def _process(self, batch: LedgerBatch) -> LedgerAnswer:
        with self._storage.gather() as operations:
            for written in batch.writes.values():
                operations += written
            overview = self._overview()
            pending = PendingState(overview, operations)
            stop_reason = cache(partial(self._stop_reason, overview))
            answer = LedgerAnswer(
                begun={begun.claim.token: self._begin(pending, begun) for begun in batch.beginnings},
                finished={result.token: self._completion.finish(pending, result) for result in batch.results},
                released={given.claim.token: self._completion.release(pending, given) for given in batch.releases},
            )
            claims = {request.token: self._claim(pending, request, stop_reason) for request in batch.claim_requests}
            answer.ended = stop_reason() if NoTrial.STOPPED in claims.values() else None
            places = self._backend.commit(self._study._study_id, operations, pending.new)
        lost = [begun.claim for begun in batch.beginnings if not answer.begun[begun.claim.token]]
        over: list[Claim | Result] = [*lost, *batch.results, *(release.claim for release in batch.releases)]
        for each in over:
            self._storage.let_go(each.trial_id)
        for token, claim in claims.items():
            if isinstance(claim, Claim):
                if token in places:  # the trial was made for it
                    claim = replace(claim, trial_id=places[token].trial_id, number=places[token].number)
                self._storage.let_go(claim.trial_id)
                self._storage.hold(claim.trial_id)
            answer.claims[token] = claim
        return answer

    def _begin(self, pending: PendingState, beginning: Beginning) -> bool:
        """Write that a trial which was claimed ahead has begun. False if the claim was lost."""
        claim = beginning.claim
        trial = pending.find(claim.trial_id)
        if trial is None or not trial.held_with(claim.token):
            return False
        owner = self._owner(claim.token, beginning)
        started = datetime.fromtimestamp(beginning.since)
        pending.operations += [SetSystemAttr(claim.trial_id, CLAIM, owner), SetStart(claim.trial_id, started)]
        pending.change(trial, claim=owner)
        return True

    def _claim(
        self, pending: PendingState, request: ClaimRequest, stop_reason: Callable[[], StopReason | None]
    ) -> Claim | NoTrial:
        """The trial that is claimed with the request's token already, or the next one, or why there is none."""
        overview = pending.overview
        mine = next((trial for trial in overview.open if trial.held_with(request.token)), None)
        if mine is not None:
            return _claim_on(mine, request.token)

        counts = count_overview(overview, self._imported)
        unfinished, left = self._unfinished(counts), self.left(counts)
        if unfinished is not None and unfinished <= 0:
            return NoTrial.DONE
        if stop_reason() is not None:
            return NoTrial.STOPPED
        if self._unconfirmed:
            return NoTrial.SOON  # or a trial that was given back could run twice here
        if request.since is None and left is not None:
            # Each slot of the other agents that runs a trial may take one of those that are left.
            running = [trial for trial in overview.open if trial.state == TrialState.RUNNING and trial.begun]
            if left <= sum((trial.claim or {}).get("agent") != self._agent for trial in running):
                return NoTrial.WAIT

        # Where the budget was lowered, what is paused may be more than there is room for.
        has_room = unfinished is None or unfinished > counts.claimed
        promoted = self._promotion.next(overview.paused) if self._promotion is not None and has_room else None
        if promoted is not None:
            return self._take(pending, promoted, request)
        if left is None or left > 0:
            waiting = _first_waiting(overview) or self._next_queued(pending)
            if waiting is not None:
                return self._take(pending, waiting, request)
            if self._queue is None:
                trial = create_trial(
                    state=TrialState.RUNNING, system_attrs={CLAIM: self._owner(request.token, request)}
                )
                trial.datetime_start = datetime.now()
                pending.make(trial)
                return Claim(-1, -1, request.token, attempt=1)  # until it is made
        return self._none_left(pending, counts)

    def _next_queued(self, pending: PendingState) -> OpenTrial | None:
        """The first trial that the queue adds."""
        if self._queue is None or not self._queue.fill():
            return None
        now = self._storage.backend.overview(self._study._study_id)
        pending.add(trial for trial in now.open if trial.state == TrialState.WAITING)
        return _first_waiting(pending.overview)

    def _take(self, pending: PendingState, trial: OpenTrial, request: ClaimRequest) -> Claim:
        """Claim a trial that waits. One that was paused is promoted, which is noted with its pause."""
        owner = self._owner(request.token, request)
        paused = {**(trial.paused or {}), "promoted": True} if trial.is_paused else trial.paused
        pending.operations.append(SetSystemAttr(trial.trial_id, CLAIM, owner))
        if trial.is_paused:
            pending.operations.append(SetSystemAttr(trial.trial_id, PAUSED, paused))
        pending.operations.append(SetState(trial.trial_id, TrialState.RUNNING))
        pending.change(trial, state=TrialState.RUNNING, claim=owner, paused=paused)
        return _claim_on(trial, request.token)

    def _owner(self, token: str, place: ClaimRequest | Beginning) -> dict[str, Any]:
        """The attribute that says who holds a trial, and where it runs."""
        where: dict[str, Any] = {"slot": place.slot, "device": place.device, "gpus": place.gpus, "since": place.since}
        if self._current is not None and self._current.config.section is not None:
            where[SECTION] = self._current.config.section
        return {"agent": self._agent, "token": token, **where}

    def _none_left(self, pending: PendingState, counts: Counts) -> NoTrial:
        """Where nothing runs and nobody can be promoted any more, paused trials end PRUNED, up to the budget."""
        if counts.ready:
            return NoTrial.SOON
        if counts.running:
            return NoTrial.WAIT
        for trial in pending.overview.paused[: self._unfinished(counts)]:
            value = last_report(self._storage.get_trial(trial.trial_id), len(self._study.directions))
            pending.operations.append(SetState(trial.trial_id, TrialState.PRUNED, value))
            pending.end(trial, TrialState.PRUNED)
        return NoTrial.DONE

    # --- who holds what ---

    def confirm(self, claims: Sequence[Claim]) -> list[Claim]:
        """Those of the claims that are still held.

        After a change that this agent has taken up, `process` gives it no trials until it has asked this.
        """
        with locked(self._lock_file):
            kept = [claim for claim in claims if self._backend.open_trial(claim.trial_id).held_with(claim.token)]
        self._unconfirmed = False
        return kept

    def reap(self) -> list[int]:
        """Deliver the results that dead agents left behind, then release their trials; returns those numbers."""
        with locked(self._lock_file):
            is_dead = cache(lambda agent: agent != self._agent and self._registry.is_dead(agent))
            for result in self._outbox.results():
                if is_dead(result.agent):
                    self._deliver(result)
            with self._storage.gather() as operations:
                pending = PendingState(self._overview(), operations)
                held = [trial for trial in pending.overview.open if trial.state == TrialState.RUNNING and trial.claim]
                lost = [trial for trial in held if trial.claim and is_dead(trial.claim["agent"])]
                for trial in lost:
                    self._completion.release_for_dead(pending, trial)
                self._backend.apply(operations)
            self._registry.sweep()
        return [trial.number for trial in lost]

    def _deliver(self, result: Result) -> None:
        try:
            self._process(LedgerBatch([result]))
        except Exception as error:
            if is_outage(error):
                raise
            self._outbox.set_aside(result.token, error)  # or it would end each agent that comes
        else:
            self._outbox.remove(result.token)

    # --- the study ---

    def look(self) -> tuple[Counts, StopReason | None]:
        """The study's trials by state, and the stopping rule that has ended it, if one has."""
        overview, ended = self._overview(), None
        if self._stopping_criteria is not None and self._stopping_criteria.may_have_ended(overview):
            with locked(self._lock_file):
                ended = self._stop_reason(self._overview())
        return count_overview(overview, self._imported), ended

    def _stop_reason(self, overview: Overview) -> StopReason | None:
        """What has ended a study with this overview. The caller holds the ledger's lock."""
        return self._stopping_criteria.ended(overview) if self._stopping_criteria is not None else None

    def left(self, counts: Counts) -> int | None:
        """How many trials nobody has claimed yet; None without a budget."""
        unfinished = self._unfinished(counts)
        return None if unfinished is None else unfinished - counts.claimed - counts.paused

    def _unfinished(self, counts: Counts) -> int | None:
        """How many trials have still to finish; None without a budget."""
        return None if self._n_trials is None else self._n_trials - counts.finished

    @cached_property
    def _imported(self) -> tuple[int, int]:
        """COMPLETE and PRUNED trials of other studies: they came before the first claim, and no more come."""
        return count_imported(self._study)

    def is_alone(self) -> bool:
        """Whether no other agent is at work on the study."""
        return all(holder.agent == self._agent for holder in self._registry.living())

    def _overview(self) -> Overview:
        """The study as it is now; what has been changed in its configuration holds from here on."""
        overview = self._backend.overview(self._study._study_id)
        if self._current is not None and self._current.take_up(overview.changes):
            self._unconfirmed = True
            config = self._current.config
            options = config.optuna
            self._n_trials = options.n_trials
            self._completion.set_limits(options.max_retries, options.max_interruptions)
            criteria = StoppingCriteria(self._study, make_rules(self._study, config))
            self._set_rules(criteria, options.max_retries)
        return overview


def _claim_on(trial: OpenTrial, token: str) -> Claim:
    return Claim(trial.trial_id, trial.number, token, trial.attempts + 1, trial.seconds, trial.gpu_seconds)


def _first_waiting(overview: Overview) -> OpenTrial | None:
    waiting = (trial for trial in overview.open if trial.state == TrialState.WAITING and not trial.is_paused)
    return next(waiting, None)
