"""Which trial a slot gets: one that may be promoted, an interrupted or enqueued one, a new one, or none."""

from __future__ import annotations

from datetime import datetime
from typing import Any, Protocol

import optuna
from optuna.trial import TrialState, create_trial

from aimlhpo.ledger.requests import Beginning, Budget, Claim, ClaimRequest, NoTrial, PendingState
from aimlhpo.search.asha import Promotion
from aimlhpo.search.stopping import StoppingCriteria
from aimlhpo.storage.base import CLAIM, PAUSED, OpenTrial, Overview, SetStart, SetState, SetSystemAttr
from aimlhpo.storage.owned import OwnedStorage
from aimlhpo.storage.trials import Counts
from aimlhpo.storage.views import last_report


class Queue(Protocol):
    """What gives a study all its trials, where its sampler makes none up."""

    def fill(self) -> bool:
        """Queue the next trials; False if there are no more."""


class Claimer:
    """Decides on the claims of one agent, under the ledger's lock.

    Runs in: the storage thread.
    """

    def __init__(
        self,
        study: optuna.Study,
        storage: OwnedStorage,
        budget: Budget,
        agent: str,
        queue: Queue | None,
        stops: StoppingCriteria | None,
        promotion: Promotion | None,
    ) -> None:
        self._study, self._storage = study, storage
        self._budget, self._agent = budget, agent
        self._queue, self._stops, self._promotion = queue, stops, promotion

    def begin(self, pending: PendingState, beginning: Beginning) -> bool:
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

    def claim(self, pending: PendingState, request: ClaimRequest) -> Claim | NoTrial:
        """The trial that is claimed with the request's token already, or the next one, or why there is none."""
        overview = pending.overview
        mine = next((trial for trial in overview.open if trial.held_with(request.token)), None)
        if mine is not None:
            return _claim_on(mine, request.token)

        counts = self._budget.counts(overview)
        unfinished, left = self._budget.unfinished(counts), self._budget.left(counts)
        if unfinished is not None and unfinished <= 0:
            return NoTrial.DONE
        if self._stops is not None and self._stops.ended(overview):
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


def _claim_on(trial: OpenTrial, token: str) -> Claim:
    return Claim(trial.trial_id, trial.number, token, trial.attempts + 1, trial.seconds, trial.gpu_seconds)


def _first_waiting(overview: Overview) -> OpenTrial | None:
    waiting = (trial for trial in overview.open if trial.state == TrialState.WAITING and not trial.is_paused)
    return next(waiting, None)
