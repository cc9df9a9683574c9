"""What is written for a trial that pauses at a rung, and for those that are never promoted.
Which trial a slot gets: one that may be promoted, an interrupted or enqueued one, a new one, or none.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from typing import Any, Protocol

import optuna
from optuna.trial import FrozenTrial, TrialState, create_trial

from aimlhpo.ledger.requests import Beginning, Budget, Claim, ClaimRequest, NoTrial, PendingState
from aimlhpo.search.asha import Promotion
from aimlhpo.search.stopping import StoppingCriteria
from aimlhpo.storage.base import CLAIM, PAUSED, RELEASED, OpenTrial, Overview, SetStart, SetState, SetSystemAttr
from aimlhpo.storage.owned import OwnedStorage
from aimlhpo.storage.trials import Counts
from aimlhpo.storage.views import last_report


def pause_attributes(trial: FrozenTrial, token: str, record: dict[str, Any], progress: list[float]) -> dict[str, Any]:
    """The system attributes of a trial that has reached `record["rung"]`. A pause is no interruption."""
    before = trial.system_attrs.get(RELEASED) or {}
    counted = before.get("token") == token  # by a batch that was cut off
    history = {
        "token": token,
        "attempts": before.get("attempts", 0) + (not counted),
        "seconds": record["seconds"],
        "gpu_seconds": record.get("gpu_seconds", 0.0),
        "cause": "paused",
        "fruitless": 0,
        "progress": progress,
    }
    return {PAUSED: {"rung": record["rung"], "token": token}, RELEASED: history}


def promotion_attributes(trial: OpenTrial) -> dict[str, Any]:
    """What becomes of the attribute of a paused trial that goes on."""
    return {**(trial.paused or {}), "promoted": True}


def final_prunings(trials: Iterable[FrozenTrial], directions: int) -> list[SetState]:
    """The ends of paused trials that nobody can promote any more: PRUNED, with their last report."""
    return [SetState(trial._trial_id, TrialState.PRUNED, last_report(trial, directions)) for trial in trials]


class Queue(Protocol):
    """What gives a study all its trials, where it makes none up itself."""

    def fill(self) -> bool:
        """Queue the next trials; False if there are no more."""


class Claiming:
    """Claims trials for one agent."""

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

    def claim(self, draft: PendingState, wish: ClaimRequest) -> Claim | NoTrial:
        """The trial that is claimed with the wish's token already, or the next one."""
        mine = draft.held_with(wish.token)
        return _claim_on(mine, wish.token) if mine else self._claim_next(draft, wish)

    def begin(self, draft: PendingState, beginning: Beginning) -> bool:
        """Write that a trial which was claimed ahead has begun. False if the claim was lost."""
        claim, since = beginning.claim, beginning.since
        trial = draft.find(claim.trial_id)
        if trial is None or not trial.held_with(claim.token):
            return False
        owner = self._owner(ClaimRequest(claim.token, beginning.slot, beginning.device, beginning.gpus, since))
        started = SetStart(claim.trial_id, datetime.fromtimestamp(since))
        draft.write([SetSystemAttr(claim.trial_id, CLAIM, owner), started])
        draft.change(trial, claim=owner)
        return True

    def _claim_next(self, draft: PendingState, wish: ClaimRequest) -> Claim | NoTrial:
        counts = self._budget.counts(draft.overview)
        return self._refusal(draft.overview, counts, wish) or self._next(draft, counts, wish)

    def _refusal(self, overview: Overview, counts: Counts, wish: ClaimRequest) -> NoTrial | None:
        """Why nothing is claimed, whatever there may be to claim."""
        unfinished, left = self._budget.unfinished(counts), self._budget.left(counts)
        if unfinished is not None and unfinished <= 0:
            return NoTrial.DONE
        if self._stops is not None and self._stops.ended(overview):
            return NoTrial.STOPPED
        if wish.ahead and left is not None and left <= self._running_elsewhere(overview):
            return NoTrial.WAIT
        return None

    def _running_elsewhere(self, overview: Overview) -> int:
        """Trials that other agents run: each of their slots may take one of those that are left."""
        running = (trial for trial in overview.open if trial.state == TrialState.RUNNING and trial.begun)
        return sum((trial.claim or {}).get("agent") != self._agent for trial in running)

    def _next(self, draft: PendingState, counts: Counts, wish: ClaimRequest) -> Claim | NoTrial:
        promoted = self._promotion.next(draft.overview.paused) if self._promotion is not None else None
        if promoted is not None:
            return self._take(draft, promoted, wish)
        left = self._budget.left(counts)
        if left is not None and left <= 0:
            return self._nothing_left(draft, counts)
        waiting = _first_waiting(draft.overview) or self._queued(draft)
        if waiting:
            return self._take(draft, waiting, wish)
        return self._nothing_left(draft, counts) if self._queue is not None else self._create(draft, wish)

    def _queued(self, draft: PendingState) -> OpenTrial | None:
        """The first trial that the queue adds."""
        if self._queue is None or not self._queue.fill():
            return None
        now = self._storage.backend.overview(self._study._study_id)
        draft.add(trial for trial in now.open if trial.state == TrialState.WAITING)
        return _first_waiting(draft.overview)

    def _take(self, draft: PendingState, trial: OpenTrial, wish: ClaimRequest) -> Claim:
        owner = self._owner(wish)
        paused = promotion_attributes(trial) if trial.is_paused else trial.paused
        attributes = {CLAIM: owner} | ({PAUSED: paused} if trial.is_paused else {})
        draft.write(SetSystemAttr(trial.trial_id, key, value) for key, value in attributes.items())
        draft.write([SetState(trial.trial_id, TrialState.RUNNING)])
        draft.change(trial, state=TrialState.RUNNING, claim=owner, paused=paused)
        return _claim_on(trial, wish.token)

    def _create(self, draft: PendingState, wish: ClaimRequest) -> Claim:
        trial = create_trial(state=TrialState.RUNNING, system_attrs={CLAIM: self._owner(wish)})
        trial.datetime_start = datetime.now()
        draft.make(trial)
        return Claim(-1, -1, wish.token, attempt=1)

    def _owner(self, wish: ClaimRequest) -> dict[str, Any]:
        where = {"slot": wish.slot, "device": wish.device, "gpus": wish.gpus, "since": wish.since}
        return {"agent": self._agent, "token": wish.token, **where}

    # --- where nothing is left ---

    def _nothing_left(self, draft: PendingState, counts: Counts) -> NoTrial:
        if counts.ready:
            return NoTrial.SOON
        return NoTrial.WAIT if counts.running else self._conclude(draft, counts)

    def _conclude(self, draft: PendingState, counts: Counts) -> NoTrial:
        """Nothing runs, and nobody can be promoted any more: what is paused ends, up to the budget."""
        paused = draft.overview.paused[: self._budget.unfinished(counts)]
        trials = [self._storage.get_trial(trial.trial_id) for trial in paused]
        draft.write(final_prunings(trials, len(self._study.directions)))
        for trial in paused:
            draft.end(trial, TrialState.PRUNED)
        return NoTrial.DONE


def _claim_on(trial: OpenTrial, token: str) -> Claim:
    return Claim(trial.trial_id, trial.number, token, trial.attempts + 1, trial.seconds, trial.gpu_seconds)


def _first_waiting(overview: Overview) -> OpenTrial | None:
    waiting = (trial for trial in overview.open if trial.state == TrialState.WAITING and not trial.is_paused)
    return next(waiting, None)
