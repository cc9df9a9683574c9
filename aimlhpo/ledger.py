"""The single place that decides who runs which trial; the exact budget lives here and nowhere else.

Every decision is taken under one lock, from what the storage holds at that moment:

    WAITING --claim--> RUNNING --finish--> COMPLETE, PRUNED or FAIL
       ^                  |
       '-----release------'      (interrupted, or its agent is dead)

A trial may be claimed ahead, for the slot that is free next: it is RUNNING and counts, but its claim says that it has
not begun. Given back, it is as if it had never been claimed.

With ASHA by promotion a trial may also finish WAITING: it is paused at a rung, and counts. It is claimed again when it
is among the best there; those that never are end PRUNED when nothing else is left to run.

A claim writes the owner's token in the same breath as the state; finish and release check it, so that an agent that
lost its claim while it was stopped or cut off cannot overwrite what others have done since.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from datetime import datetime
from functools import cached_property
from typing import Any, Protocol

import optuna
from optuna.trial import TrialState, create_trial

from aimlhpo import interruptions, pausing
from aimlhpo.asha import Promotion
from aimlhpo.backends import OpenTrial, Overview, OwnedStorage, own
from aimlhpo.backends.backend import CLAIM, PAUSED, RELEASED, Place
from aimlhpo.backends.operations import Operation, SetStart, SetState, SetSystemAttr, SetUserAttr
from aimlhpo.counts import Counts, count_overview
from aimlhpo.draft import Draft
from aimlhpo.finishing import Finishing
from aimlhpo.leases import Registry
from aimlhpo.locks import locked
from aimlhpo.outbox import Outbox
from aimlhpo.paths import StudyPaths
from aimlhpo.records import ATTRIBUTE
from aimlhpo.stopping import Ended, Stops
from aimlhpo.taken import number_taken
from aimlhpo.turn import Claim, Finish, Nothing, Release, Settled, Turn, Wish, new_token


class Queue(Protocol):
    """What gives a study all its trials, where it makes none up itself."""

    def fill(self) -> bool:
        """Queue the next trials; False if there are no more."""


class Ledger:
    """Claims, finishes and releases the trials of one study for one agent."""

    def __init__(
        self,
        study: optuna.Study,
        paths: StudyPaths,
        n_trials: int | None,
        agent: str,
        registry: Registry,
        max_retries: int = 0,
        max_interruptions: int = interruptions.MOST_FRUITLESS,
        queue: Queue | None = None,
        stops: Stops | None = None,
        promotion: Promotion | None = None,
    ) -> None:
        self._study = study
        storage = study._storage
        self._storage = storage if isinstance(storage, OwnedStorage) else own(storage)
        self._backend = self._storage.backend
        self._finishing = Finishing(study, self._storage, paths, max_retries)
        self._paths = paths
        self._n_trials = n_trials
        self._agent = agent
        self._registry = registry
        self._max_interruptions = max_interruptions
        self._queue = queue
        self._stops = stops
        self._promotion = promotion
        self._outbox = Outbox(paths.outbox)

    # --- many requests at once ---

    def settle(self, turn: Turn) -> Settled:
        """Decide on all requests, and write what follows at once. Safe to repeat: tokens tell what was done before.

        Where a value is refused, nothing of the turn is written, and the error is raised.
        """
        if not turn.asks:
            self._backend.apply(turn.operations)
            return Settled()
        with locked(self._paths.lock):
            if not (turn.finishes and turn.wishes and self._looks_at_results):
                return self._settle(turn)
            ended = self._settle(Turn(turn.finishes, turn.releases, along=turn.along))
            return Settled.of([ended, self._settle(Turn(wishes=turn.wishes))])

    @property
    def _looks_at_results(self) -> bool:
        """Whether a claim depends on the results that are stored."""
        return self._stops is not None or self._promotion is not None or self._finishing.retries

    def _settle(self, turn: Turn) -> Settled:
        with self._storage.gather() as operations:
            operations += turn.operations
            draft = Draft(self._overview(), operations)
            settled = Settled(
                finished={finish.claim.token: self._finish(draft, finish) for finish in turn.finishes},
                released={release.claim.token: self._release(draft, release) for release in turn.releases},
            )
            claims = {wish.token: self._claim(draft, wish) for wish in turn.wishes}
            places = self._backend.commit(self._study._study_id, operations, draft.new)
        for ended in (*(finish.claim for finish in turn.finishes), *(release.claim for release in turn.releases)):
            self._storage.let_go(ended.trial_id)
        settled.claims = {token: self._held(claim, places.get(token)) for token, claim in claims.items()}
        return settled

    def _held(self, claim: Claim | Nothing, place: Place | None) -> Claim | Nothing:
        """The claim, on the trial that was made for it where `place` is given."""
        if isinstance(claim, Nothing):
            return claim
        if place is not None:
            claim = Claim(place.trial_id, place.number, claim.token, claim.attempt)
        self._storage.let_go(claim.trial_id)
        self._storage.hold(claim.trial_id)
        return claim

    # --- one request ---

    def claim(self, slot: int, device: str, token: str | None = None, gpus: float = 0.0) -> Claim | Nothing:
        """The next trial for a slot: an interrupted or enqueued one before a new one.

        A repeated call with the same token returns the claim that an earlier call made before it was cut short.
        """
        return self._claim_one(Wish(token or new_token(), slot, device, gpus, time.time()))

    def claim_ahead(self, token: str | None = None) -> Claim | Nothing:
        """The next trial for whichever of this agent's slots is free first: it counts, but has not begun.

        Nothing.WAIT where what is left is not more than what other agents run: a slot that is free there takes that.
        """
        return self._claim_one(Wish(token or new_token()))

    def _claim_one(self, wish: Wish) -> Claim | Nothing:
        return self.settle(Turn(wishes=[wish])).claims[wish.token]

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
        finish = Finish(claim, state, values, record, list(reports))
        return self.settle(Turn(finishes=[finish])).finished[claim.token]

    def release(self, claim: Claim, cause: str, seconds: float = 0.0) -> bool:
        """Give an unfinished trial back, to be continued by whoever claims it next. False if the claim was lost."""
        return self._release_one(Release(claim, cause, seconds))

    def give_back(self, claim: Claim) -> bool:
        """Give a trial back that has not begun, as if it had never been claimed. False if the claim was lost."""
        return self._release_one(Release(claim, None))

    def _release_one(self, release: Release) -> bool:
        return self.settle(Turn(releases=[release])).released[release.claim.token]

    # --- claims ---

    def _claim(self, draft: Draft, wish: Wish) -> Claim | Nothing:
        mine = draft.held_with(wish.token)
        return _claim_on(mine, wish.token) if mine else self._claim_next(draft, wish)

    def _claim_next(self, draft: Draft, wish: Wish) -> Claim | Nothing:
        overview = draft.overview
        counts = count_overview(overview, self._taken)
        if self._n_trials is not None and counts.finished >= self._n_trials:
            return Nothing.DONE
        if self._stops is not None and self._stops.ended(overview):
            return Nothing.STOPPED
        left = self.left(counts)
        if wish.ahead and left is not None and left <= self._running_elsewhere(overview):
            return Nothing.WAIT
        promoted = self._promotion.next(overview.paused) if self._promotion is not None else None
        if promoted is not None:
            return self._take(draft, promoted, wish)
        if left is not None and left <= 0:
            return self._nothing_left(draft, counts)
        waiting = _first_waiting(overview) or self._queued(draft)
        if waiting:
            return self._take(draft, waiting, wish)
        return self._nothing_left(draft, counts) if self._queue is not None else self._create(draft, wish)

    def _running_elsewhere(self, overview: Overview) -> int:
        """Trials that other agents run: each of their slots may take one of those that are left."""
        return sum(trial.begun and (trial.claim or {}).get("agent") != self._agent for trial in overview.open)

    def is_alone(self) -> bool:
        """Whether no other agent is at work on the study."""
        return all(holder.agent == self._agent for holder in self._registry.living())

    def left(self, counts: Counts) -> int | None:
        """How many trials nobody has claimed yet; None without a budget."""
        return None if self._n_trials is None else self._n_trials - counts.finished - counts.claimed - counts.paused

    def _nothing_left(self, draft: Draft, counts: Counts) -> Nothing:
        if counts.ready:
            return Nothing.SOON
        return Nothing.WAIT if counts.running else self._conclude(draft, counts)

    def _conclude(self, draft: Draft, counts: Counts) -> Nothing:
        """Nothing runs, and nobody can be promoted any more: what is paused ends, up to the budget."""
        left = None if self._n_trials is None else self._n_trials - counts.finished
        paused = draft.overview.paused[:left]
        trials = [self._storage.get_trial(trial.trial_id) for trial in paused]
        draft.write(pausing.endings(trials, len(self._study.directions)))
        for trial in paused:
            draft.end(trial, TrialState.PRUNED)
        return Nothing.DONE

    def _queued(self, draft: Draft) -> OpenTrial | None:
        """The first trial that the queue adds."""
        if self._queue is None or not self._queue.fill():
            return None
        draft.add(trial for trial in self._overview().open if trial.state == TrialState.WAITING)
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

    def beginning(self, claim: Claim, slot: int, device: str, gpus: float, since: float) -> list[Operation]:
        """What is to be written when a trial that was claimed ahead has begun, `since` seconds since the epoch."""
        owner = self._owner(Wish(claim.token, slot, device, gpus, since))
        return [SetSystemAttr(claim.trial_id, CLAIM, owner), SetStart(claim.trial_id, datetime.fromtimestamp(since))]

    # --- endings ---

    def _finish(self, draft: Draft, finish: Finish) -> bool:
        claim = finish.claim
        stored = draft.find(claim.trial_id) or self._backend.open_trial(claim.trial_id)
        if not stored.held_with(claim.token):
            return stored.ended_with(claim.token)
        self._storage.hold(claim.trial_id)
        self._finishing.write(finish)
        if finish.state == TrialState.WAITING:
            rung = {"rung": finish.record["rung"], "token": claim.token}
            draft.change(stored, state=TrialState.WAITING, claim=None, paused=rung)
        else:
            draft.end(stored, finish.state)
        if finish.state == TrialState.FAIL:
            draft.new += self._finishing.retry_of(claim.trial_id)
        return True

    def _release(self, draft: Draft, release: Release) -> bool:
        trial = draft.find(release.claim.trial_id)
        if trial is None or not trial.held_with(release.claim.token):
            return False
        if release.cause is None:
            self._unclaim(draft, trial)
        else:
            self._interrupt(draft, trial, release.cause, release.seconds)
        return True

    def _unclaim(self, draft: Draft, trial: OpenTrial) -> None:
        draft.write([SetSystemAttr(trial.trial_id, CLAIM, None), SetState(trial.trial_id, TrialState.WAITING)])
        draft.change(trial, state=TrialState.WAITING, claim=None)

    def _interrupt(self, draft: Draft, trial: OpenTrial, cause: str, seconds: float) -> None:
        gpus = float((trial.claim or {}).get("gpus", 0.0))
        progress = self._finishing.progress(trial.trial_id, trial.number)
        history = interruptions.after(trial.released, cause, seconds, progress, gpus)
        draft.write([SetSystemAttr(trial.trial_id, RELEASED, history)])
        self._unclaim(draft, trial)
        if interruptions.are_too_many(history, self._max_interruptions):
            record = interruptions.record(history)
            draft.write([SetUserAttr(trial.trial_id, ATTRIBUTE, record), SetState(trial.trial_id, TrialState.FAIL)])

    def confirm(self, claims: Sequence[Claim]) -> list[Claim]:
        """Those of the claims that are still held."""
        with locked(self._paths.lock):
            return [claim for claim in claims if self._backend.open_trial(claim.trial_id).held_with(claim.token)]

    def reap(self) -> list[int]:
        """Deliver the results that dead agents left behind, then release their trials; returns those numbers."""
        with locked(self._paths.lock):
            dead: dict[str, bool] = {}
            self._deliver(dead)
            with self._storage.gather() as operations:
                draft = Draft(self._overview(), operations)
                lost = [trial for trial in draft.overview.open if self._is_orphan(trial, dead)]
                for trial in lost:
                    self._take_from_dead(draft, trial)
                self._backend.apply(operations)
            self._registry.sweep()
        return [trial.number for trial in lost]

    def _take_from_dead(self, draft: Draft, trial: OpenTrial) -> None:
        if trial.begun:
            self._interrupt(draft, trial, "node failure", 0.0)
        else:
            self._unclaim(draft, trial)

    def _deliver(self, dead: dict[str, bool]) -> None:
        for result in self._outbox.results():
            if self._is_dead(result.agent, dead):
                claim = Claim(result.trial_id, result.number, result.token, attempt=1)
                ended = Finish(claim, TrialState[result.state], result.values, result.record, result.reports)
                self._settle(Turn(finishes=[ended]))
                self._outbox.remove(result.token)

    def _is_orphan(self, trial: OpenTrial, dead: dict[str, bool]) -> bool:
        if trial.state != TrialState.RUNNING or not trial.claim:
            return False
        return self._is_dead(trial.claim["agent"], dead)

    def _is_dead(self, agent: str, known: dict[str, bool]) -> bool:
        if agent not in known:
            known[agent] = agent != self._agent and self._registry.is_dead(agent)
        return known[agent]

    def ended(self) -> Ended | None:
        """Which stopping rule has ended the study, if one has."""
        if self._stops is None:
            return None
        with locked(self._paths.lock):
            return self._stops.ended(self._overview())

    def counts(self) -> Counts:
        return count_overview(self._overview(), self._taken)

    @cached_property
    def _taken(self) -> tuple[int, int]:
        """COMPLETE and PRUNED trials of other studies: they came before the first claim, and no more come."""
        return number_taken(self._study)

    def _overview(self) -> Overview:
        return self._backend.overview(self._study._study_id)


def _claim_on(trial: OpenTrial, token: str) -> Claim:
    return Claim(trial.trial_id, trial.number, token, trial.attempts + 1, trial.seconds, trial.gpu_seconds)


def _first_waiting(overview: Overview) -> OpenTrial | None:
    waiting = (trial for trial in overview.open if trial.state == TrialState.WAITING and not trial.is_paused)
    return next(waiting, None)
