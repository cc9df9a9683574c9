"""Which trial a slot gets: one that may be promoted, an interrupted or enqueued one, a new one, or none."""

from __future__ import annotations

from datetime import datetime
from typing import Any, Protocol

import optuna
from optuna.trial import TrialState, create_trial

from aimlhpo.asha import Promotion
from aimlhpo.backends import OpenTrial, Overview, OwnedStorage
from aimlhpo.backends.backend import CLAIM, PAUSED
from aimlhpo.backends.operations import SetStart, SetState, SetSystemAttr
from aimlhpo.counts import Counts
from aimlhpo.ledger import pausing
from aimlhpo.ledger.budget import Budget
from aimlhpo.ledger.draft import Draft
from aimlhpo.ledger.turn import Beginning, Claim, Nothing, Wish
from aimlhpo.stopping import Stops


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
        stops: Stops | None,
        promotion: Promotion | None,
    ) -> None:
        self._study, self._storage = study, storage
        self._budget, self._agent = budget, agent
        self._queue, self._stops, self._promotion = queue, stops, promotion

    def claim(self, draft: Draft, wish: Wish) -> Claim | Nothing:
        """The trial that is claimed with the wish's token already, or the next one."""
        mine = draft.held_with(wish.token)
        return _claim_on(mine, wish.token) if mine else self._claim_next(draft, wish)

    def begin(self, draft: Draft, beginning: Beginning) -> bool:
        """Write that a trial which was claimed ahead has begun. False if the claim was lost."""
        claim, since = beginning.claim, beginning.since
        trial = draft.find(claim.trial_id)
        if trial is None or not trial.held_with(claim.token):
            return False
        owner = self._owner(Wish(claim.token, beginning.slot, beginning.device, beginning.gpus, since))
        started = SetStart(claim.trial_id, datetime.fromtimestamp(since))
        draft.write([SetSystemAttr(claim.trial_id, CLAIM, owner), started])
        draft.change(trial, claim=owner)
        return True

    def _claim_next(self, draft: Draft, wish: Wish) -> Claim | Nothing:
        counts = self._budget.counts(draft.overview)
        return self._refusal(draft.overview, counts, wish) or self._next(draft, counts, wish)

    def _refusal(self, overview: Overview, counts: Counts, wish: Wish) -> Nothing | None:
        """Why nothing is claimed, whatever there may be to claim."""
        unfinished, left = self._budget.unfinished(counts), self._budget.left(counts)
        if unfinished is not None and unfinished <= 0:
            return Nothing.DONE
        if self._stops is not None and self._stops.ended(overview):
            return Nothing.STOPPED
        if wish.ahead and left is not None and left <= self._running_elsewhere(overview):
            return Nothing.WAIT
        return None

    def _running_elsewhere(self, overview: Overview) -> int:
        """Trials that other agents run: each of their slots may take one of those that are left."""
        running = (trial for trial in overview.open if trial.state == TrialState.RUNNING and trial.begun)
        return sum((trial.claim or {}).get("agent") != self._agent for trial in running)

    def _next(self, draft: Draft, counts: Counts, wish: Wish) -> Claim | Nothing:
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

    def _queued(self, draft: Draft) -> OpenTrial | None:
        """The first trial that the queue adds."""
        if self._queue is None or not self._queue.fill():
            return None
        now = self._storage.backend.overview(self._study._study_id)
        draft.add(trial for trial in now.open if trial.state == TrialState.WAITING)
        return _first_waiting(draft.overview)

    def _take(self, draft: Draft, trial: OpenTrial, wish: Wish) -> Claim:
        owner = self._owner(wish)
        paused = pausing.promoted(trial) if trial.is_paused else trial.paused
        attributes = {CLAIM: owner} | ({PAUSED: paused} if trial.is_paused else {})
        draft.write(SetSystemAttr(trial.trial_id, key, value) for key, value in attributes.items())
        draft.write([SetState(trial.trial_id, TrialState.RUNNING)])
        draft.change(trial, state=TrialState.RUNNING, claim=owner, paused=paused)
        return _claim_on(trial, wish.token)

    def _create(self, draft: Draft, wish: Wish) -> Claim:
        trial = create_trial(state=TrialState.RUNNING, system_attrs={CLAIM: self._owner(wish)})
        trial.datetime_start = datetime.now()
        draft.make(trial)
        return Claim(-1, -1, wish.token, attempt=1)

    def _owner(self, wish: Wish) -> dict[str, Any]:
        where = {"slot": wish.slot, "device": wish.device, "gpus": wish.gpus, "since": wish.since}
        return {"agent": self._agent, "token": wish.token, **where}

    # --- where nothing is left ---

    def _nothing_left(self, draft: Draft, counts: Counts) -> Nothing:
        if counts.ready:
            return Nothing.SOON
        return Nothing.WAIT if counts.running else self._conclude(draft, counts)

    def _conclude(self, draft: Draft, counts: Counts) -> Nothing:
        """Nothing runs, and nobody can be promoted any more: what is paused ends, up to the budget."""
        paused = draft.overview.paused[: self._budget.unfinished(counts)]
        trials = [self._storage.get_trial(trial.trial_id) for trial in paused]
        draft.write(pausing.endings(trials, len(self._study.directions)))
        for trial in paused:
            draft.end(trial, TrialState.PRUNED)
        return Nothing.DONE


def _claim_on(trial: OpenTrial, token: str) -> Claim:
    return Claim(trial.trial_id, trial.number, token, trial.attempts + 1, trial.seconds, trial.gpu_seconds)


def _first_waiting(overview: Overview) -> OpenTrial | None:
    waiting = (trial for trial in overview.open if trial.state == TrialState.WAITING and not trial.is_paused)
    return next(waiting, None)
