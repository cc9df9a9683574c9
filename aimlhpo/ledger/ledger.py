"""The ledger of one study, as one agent sees it: it decides who runs which trial.

Each call takes the ledger's lock (a file), reads the study's overview, decides on all requests of a batch one after
another, and writes what follows at once. A slot gets a trial that may be promoted, an interrupted or enqueued one, a
new one, or none. Everything here runs in the agent's storage thread.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from dataclasses import replace
from datetime import datetime
from functools import cache
from typing import Any, Protocol

import optuna
from optuna.trial import TrialState, create_trial

from aimlhpo.config.optuna_section import MOST_FRUITLESS
from aimlhpo.ledger.completion import Finisher, Releaser
from aimlhpo.ledger.leases import Registry
from aimlhpo.ledger.outbox import Outbox
from aimlhpo.ledger.requests import (
    Beginning,
    Budget,
    Claim,
    ClaimRequest,
    LedgerAnswer,
    LedgerBatch,
    NoTrial,
    PendingState,
    Release,
    Result,
    new_token,
)
from aimlhpo.paths import StudyPaths
from aimlhpo.search.asha import Promotion
from aimlhpo.search.stopping import StoppingCriteria, StopReason
from aimlhpo.storage.base import CLAIM, PAUSED, OpenTrial, Overview, SetStart, SetState, SetSystemAttr
from aimlhpo.storage.locks import locked
from aimlhpo.storage.owned import OwnedStorage, own
from aimlhpo.storage.retry import is_outage
from aimlhpo.storage.trials import Counts
from aimlhpo.storage.views import last_report


class Queue(Protocol):
    """What gives a study all its trials, where its sampler makes none up."""

    def fill(self) -> bool:
        """Queue the next trials; False if there are no more."""


class Ledger:
    """Claims, finishes and releases the trials of one study for one agent.

    Args:
        n_trials: how many trials must end COMPLETE or PRUNED; None: as many as the queue gives.
        agent: the name of the agent.
        registry: judges which agents are dead.
        max_retries: how often a failed trial is tried again.
        max_interruptions: how many interruptions in a row without progress make a trial fail.
        queue: what gives the study its trials, where its sampler makes none up.

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
        queue: Queue | None = None,
        stopping_criteria: StoppingCriteria | None = None,
        promotion: Promotion | None = None,
    ) -> None:
        self._study, self._lock, self._agent, self._registry = study, paths.lock, agent, registry
        storage = study._storage
        self._storage = storage if isinstance(storage, OwnedStorage) else own(storage)
        self._backend = self._storage.backend
        self._budget = Budget(study, n_trials)
        self._finisher = Finisher(study, self._storage, paths, max_retries)
        self._releaser = Releaser(self._storage, paths, max_interruptions)
        self._queue, self._promotion = queue, promotion
        self._stopping_criteria = stopping_criteria
        self._claims_read_results = stopping_criteria is not None or promotion is not None or self._finisher.retries
        self._outbox = Outbox(paths.outbox)

    # --- many requests at once ---

    def process(self, batch: LedgerBatch) -> LedgerAnswer:
        """Decide on all requests, and write what follows at once. Safe to repeat: tokens tell what was done before.

        Where a value is refused, nothing of the batch is written, and the error is raised.
        """
        with locked(self._lock):
            if not (batch.results and batch.claim_requests and self._claims_read_results):
                return self._process(batch)
            ended = self._process(replace(batch, claim_requests=()))
            return LedgerAnswer.of([ended, self._process(LedgerBatch(claim_requests=batch.claim_requests))])

    def _process(self, batch: LedgerBatch) -> LedgerAnswer:
        with self._storage.gather() as operations:
            operations += batch.operations
            pending = PendingState(self._overview(), operations)
            answer = LedgerAnswer(
                begun={begun.claim.token: self._begin(pending, begun) for begun in batch.beginnings},
                finished={result.token: self._finisher.finish(pending, result) for result in batch.results},
                released={release.claim.token: self._releaser.release(pending, release) for release in batch.releases},
            )
            claims = {request.token: self._claim(pending, request) for request in batch.claim_requests}
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

    # --- one request ---

    def claim(self, slot: int, device: str, token: str | None = None, gpus: float = 0.0) -> Claim | NoTrial:
        """The next trial for a slot: an interrupted or enqueued one before a new one.

        A repeated call with the same token returns the claim that an earlier call made before it was cut short.
        """
        return self._claim_one(ClaimRequest(token or new_token(), slot, device, gpus, time.time()))

    def claim_ahead(self, token: str | None = None) -> Claim | NoTrial:
        """The next trial for whichever of this agent's slots is free first: it counts, but has not begun.

        NoTrial.WAIT where what is left is not more than what other agents run: a slot that is free there takes that.
        """
        return self._claim_one(ClaimRequest(token or new_token()))

    def _claim_one(self, request: ClaimRequest) -> Claim | NoTrial:
        return self.process(LedgerBatch(claim_requests=[request])).claims[request.token]

    def finish(
        self,
        claim: Claim,
        state: TrialState,
        values: Sequence[float] | None,
        record: dict[str, Any],
        reports: Iterable[tuple[int, float]] = (),
    ) -> bool:
        """Write a trial's result, and those of its reports that are not stored yet; WAITING pauses it at a rung.

        False if the claim was lost meanwhile: then nothing is written.
        """
        found = None if values is None else list(values)
        result = Result(
            self._agent, claim.trial_id, claim.number, claim.token, state.name, found, record, list(reports)
        )
        return self.process(LedgerBatch([result])).finished[claim.token]

    def release(self, claim: Claim, cause: str | None, seconds: float = 0.0) -> bool:
        """Give an unfinished trial back; without a cause, as if it had never been claimed. False if the claim was lost.

        `seconds` is what this attempt took.
        """
        return self.process(LedgerBatch(releases=[Release(claim, cause, seconds)])).released[claim.token]

    # --- what a claim gives ---

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

    def _claim(self, pending: PendingState, request: ClaimRequest) -> Claim | NoTrial:
        """The trial that is claimed with the request's token already, or the next one, or why there is none."""
        overview = pending.overview
        mine = next((trial for trial in overview.open if trial.held_with(request.token)), None)
        if mine is not None:
            return _claim_on(mine, request.token)

        counts = self._budget.counts(overview)
        unfinished, left = self._budget.unfinished(counts), self._budget.left(counts)
        if unfinished is not None and unfinished <= 0:
            return NoTrial.DONE
        if self._stopping_criteria is not None and self._stopping_criteria.ended(overview):
            return NoTrial.STOPPED
        if request.since is None and left is not None and left <= self._running_elsewhere(overview):
            return NoTrial.WAIT  # a slot that is free elsewhere takes what is left

        promoted = self._promotion.next(overview.paused) if self._promotion is not None else None
        if promoted is not None:
            return self._take(pending, promoted, request)
        if left is None or left > 0:
            waiting = _first_waiting(overview) or self._next_queued(pending)
            if waiting is not None:
                return self._take(pending, waiting, request)
            if self._queue is None:
                return self._create(pending, request)
        return self._none_left(pending, counts)

    def _running_elsewhere(self, overview: Overview) -> int:
        """Trials that other agents run: each of their slots may take one of those that are left."""
        running = (trial for trial in overview.open if trial.state == TrialState.RUNNING and trial.begun)
        return sum((trial.claim or {}).get("agent") != self._agent for trial in running)

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

    def _create(self, pending: PendingState, request: ClaimRequest) -> Claim:
        trial = create_trial(state=TrialState.RUNNING, system_attrs={CLAIM: self._owner(request.token, request)})
        trial.datetime_start = datetime.now()
        pending.make(trial)
        return Claim(-1, -1, request.token, attempt=1)

    def _owner(self, token: str, place: ClaimRequest | Beginning) -> dict[str, Any]:
        """The attribute that says who holds a trial, and where it runs."""
        where = {"slot": place.slot, "device": place.device, "gpus": place.gpus, "since": place.since}
        return {"agent": self._agent, "token": token, **where}

    def _none_left(self, pending: PendingState, counts: Counts) -> NoTrial:
        """Where nothing runs and nobody can be promoted any more, paused trials end PRUNED, up to the budget."""
        if counts.ready:
            return NoTrial.SOON
        if counts.running:
            return NoTrial.WAIT
        for trial in pending.overview.paused[: self._budget.unfinished(counts)]:
            value = last_report(self._storage.get_trial(trial.trial_id), len(self._study.directions))
            pending.operations.append(SetState(trial.trial_id, TrialState.PRUNED, value))
            pending.end(trial, TrialState.PRUNED)
        return NoTrial.DONE

    # --- who holds what ---

    def confirm(self, claims: Sequence[Claim]) -> list[Claim]:
        """Those of the claims that are still held."""
        with locked(self._lock):
            return [claim for claim in claims if self._backend.open_trial(claim.trial_id).held_with(claim.token)]

    def reap(self) -> list[int]:
        """Deliver the results that dead agents left behind, then release their trials; returns those numbers."""
        with locked(self._lock):
            is_dead = cache(lambda agent: agent != self._agent and self._registry.is_dead(agent))
            for result in self._outbox.results():
                if is_dead(result.agent):
                    self._deliver(result)
            with self._storage.gather() as operations:
                pending = PendingState(self._overview(), operations)
                held = [trial for trial in pending.overview.open if trial.state == TrialState.RUNNING and trial.claim]
                lost = [trial for trial in held if trial.claim and is_dead(trial.claim["agent"])]
                for trial in lost:
                    self._releaser.release_for_dead(pending, trial)
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

    def ended(self) -> StopReason | None:
        """Which stopping rule has ended the study, if one has."""
        if self._stopping_criteria is None:
            return None
        with locked(self._lock):
            return self._stopping_criteria.ended(self._overview())

    def counts(self) -> Counts:
        return self._budget.counts(self._overview())

    def left(self, counts: Counts) -> int | None:
        """How many trials nobody has claimed yet; None without a budget."""
        return self._budget.left(counts)

    def is_alone(self) -> bool:
        """Whether no other agent is at work on the study."""
        return all(holder.agent == self._agent for holder in self._registry.living())

    def _overview(self) -> Overview:
        return self._backend.overview(self._study._study_id)


def _claim_on(trial: OpenTrial, token: str) -> Claim:
    return Claim(trial.trial_id, trial.number, token, trial.attempts + 1, trial.seconds, trial.gpu_seconds)


def _first_waiting(overview: Overview) -> OpenTrial | None:
    waiting = (trial for trial in overview.open if trial.state == TrialState.WAITING and not trial.is_paused)
    return next(waiting, None)
