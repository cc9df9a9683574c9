"""The single place that decides who runs which trial; the exact budget lives here and nowhere else.

Every decision is taken under one lock, from what the storage holds at that moment:

    WAITING --claim--> RUNNING --finish--> COMPLETE, PRUNED or FAIL
       ^                  |
       '-----release------'      (interrupted, or its agent is dead)

With ASHA by promotion a trial may also finish WAITING: it is paused at a rung, and counts. It is claimed again when it
is among the best there; those that never are end PRUNED when nothing else is left to run.

A claim writes the owner's token in the same breath as the state; finish and release check it, so that an agent that
lost its claim while it was stopped or cut off cannot overwrite what others have done since.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import Enum
from functools import cached_property
from typing import Any, Protocol

import optuna
from optuna.trial import TrialState, create_trial

from aimlhpo import interruptions, pausing
from aimlhpo.asha import Promotion
from aimlhpo.backends import OpenTrial, Overview, OwnedStorage, own
from aimlhpo.backends.backend import CLAIM, PAUSED, RELEASED
from aimlhpo.backends.operations import Operation, SetState, SetSystemAttr, SetUserAttr
from aimlhpo.backends.views import last_report
from aimlhpo.counts import Counts, count_overview
from aimlhpo.leases import Registry
from aimlhpo.locks import locked
from aimlhpo.outbox import Outbox
from aimlhpo.paths import StudyPaths
from aimlhpo.records import ATTRIBUTE, CONSTRAINTS, OPTUNA_CONSTRAINT
from aimlhpo.sampling import after_trial
from aimlhpo.stopping import Ended, Stops
from aimlhpo.taken import number_taken

RETRY = "aimlhpo:retry"


@dataclass(frozen=True)
class Claim:
    """The right to run one trial, for as long as the token stands in the storage."""

    trial_id: int
    number: int
    token: str
    attempt: int
    seconds_before: float = 0.0
    gpu_seconds_before: float = 0.0


class Nothing(Enum):
    """Why there is no trial to claim."""

    DONE = "the budget is finished"
    WAIT = "all that is left of the budget is running"
    STOPPED = "a stopping rule has ended the study"


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
        self._paths = paths
        self._n_trials = n_trials
        self._agent = agent
        self._registry = registry
        self._max_retries, self._max_interruptions = max_retries, max_interruptions
        self._queue = queue
        self._stops = stops
        self._promotion = promotion
        self._outbox = Outbox(paths.outbox)

    def claim(self, slot: int, device: str, token: str | None = None, gpus: float = 0.0) -> Claim | Nothing:
        """The next trial for a slot: an interrupted or enqueued one before a new one.

        A repeated call with the same token returns the claim that an earlier call made before it was cut short.
        """
        token = token or new_token()
        owner = {
            "agent": self._agent,
            "token": token,
            "slot": slot,
            "device": device,
            "gpus": gpus,
            "since": time.time(),
        }
        with locked(self._paths.lock):
            overview = self._overview()
            mine = next((trial for trial in overview.open if trial.held_with(token)), None)
            return self._hold(mine, token) if mine else self._claim_next(overview, owner)

    def _claim_next(self, overview: Overview, owner: dict[str, Any]) -> Claim | Nothing:
        counts = count_overview(overview, self._taken)
        if self._n_trials is not None and counts.finished >= self._n_trials:
            return Nothing.DONE
        if self._stops is not None and self._stops.ended(overview):
            return Nothing.STOPPED
        promoted = self._promotion.next(overview.paused) if self._promotion is not None else None
        if promoted is not None:
            return self._take(promoted, owner)
        if self._n_trials is not None and counts.finished + counts.running + counts.paused >= self._n_trials:
            return Nothing.WAIT if counts.running else self._conclude(overview, counts)
        waiting = _first_waiting(overview) or self._queued()
        if waiting:
            return self._take(waiting, owner)
        if self._queue is not None:
            return Nothing.WAIT if counts.running else self._conclude(overview, counts)
        return self._create(owner)

    def _conclude(self, overview: Overview, counts: Counts) -> Nothing:
        """Nothing runs, and nobody can be promoted any more: what is paused ends, up to the budget."""
        left = None if self._n_trials is None else self._n_trials - counts.finished
        trials = [self._storage.get_trial(trial.trial_id) for trial in overview.paused[:left]]
        self._backend.apply(pausing.endings(trials, len(self._study.directions)))
        return Nothing.DONE

    def _queued(self) -> OpenTrial | None:
        """The first trial that the queue adds."""
        return _first_waiting(self._overview()) if self._queue is not None and self._queue.fill() else None

    def _take(self, trial: OpenTrial, owner: dict[str, Any]) -> Claim:
        attributes = {CLAIM: owner} | ({PAUSED: pausing.promoted(trial)} if trial.is_paused else {})
        written = [SetSystemAttr(trial.trial_id, key, value) for key, value in attributes.items()]
        self._backend.apply([*written, SetState(trial.trial_id, TrialState.RUNNING)])
        return self._hold(trial, owner["token"])

    def _hold(self, trial: OpenTrial, token: str) -> Claim:
        self._storage.let_go(trial.trial_id)
        self._storage.hold(trial.trial_id)
        return Claim(trial.trial_id, trial.number, token, trial.attempts + 1, trial.seconds, trial.gpu_seconds)

    def _create(self, owner: dict[str, Any]) -> Claim:
        trial = create_trial(state=TrialState.RUNNING, system_attrs={CLAIM: owner})
        trial.datetime_start = datetime.now()
        trial._trial_id, trial.number = self._backend.create(self._study._study_id, trial)
        self._storage.hold(trial._trial_id, trial)
        return Claim(trial._trial_id, trial.number, owner["token"], attempt=1)

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
        with locked(self._paths.lock):
            return self._finish(claim, state, values, record, reports)

    def _finish(
        self,
        claim: Claim,
        state: TrialState,
        values: Sequence[float] | None,
        record: dict[str, Any],
        reports: Iterable[tuple[int, float]],
    ) -> bool:
        stored = self._backend.open_trial(claim.trial_id)
        if stored.ended_with(claim.token):
            return True
        if not stored.held_with(claim.token):
            return False
        self._storage.hold(claim.trial_id)
        with self._storage.batch():
            self._write_reports(claim, reports)
            self._write_result(stored, claim, state, values, record)
        self._storage.let_go(claim.trial_id)
        if state == TrialState.FAIL:
            self._retry(claim)
        return True

    def _write_reports(self, claim: Claim, reports: Iterable[tuple[int, float]]) -> None:
        stored = self._storage.get_trial(claim.trial_id).intermediate_values
        for step, value in reports:
            if stored.get(step) != value:
                self._storage.set_trial_intermediate_value(claim.trial_id, step, value)

    def _write_result(
        self,
        stored: OpenTrial,
        claim: Claim,
        state: TrialState,
        values: Sequence[float] | None,
        record: dict[str, Any],
    ) -> None:
        trial = self._storage.get_trial(claim.trial_id)
        if state == TrialState.WAITING:
            values = None
            progress = self._progress(stored)
            for key, value in pausing.attributes(trial, claim.token, record, progress).items():
                self._storage.set_trial_system_attr(claim.trial_id, key, value)
        elif state == TrialState.PRUNED:
            values = last_report(trial, len(self._study.directions))
        self._storage.set_trial_user_attr(claim.trial_id, ATTRIBUTE, record)
        for text, value in record.get(CONSTRAINTS, {}).items():
            self._storage.set_trial_system_attr(claim.trial_id, f"{OPTUNA_CONSTRAINT}{text}", value)
        if state.is_finished():
            after_trial(self._study, trial, state, values)
        self._storage.set_trial_state_values(claim.trial_id, state, values)

    def _retry(self, claim: Claim) -> None:
        """Enqueue a failed trial's parameters again, as often as `max_retries` says, linked to the first trial."""
        if self._max_retries == 0:
            return
        trial = self._storage.get_trial(claim.trial_id)
        before = trial.system_attrs.get(RETRY, {"of": trial.number, "count": 0})
        if before["count"] < self._max_retries:
            link = {"of": before["of"], "count": before["count"] + 1}
            fixed = {**trial.system_attrs.get("fixed_params", {}), **trial.params}
            attrs = {"fixed_params": fixed, RETRY: link}
            template = create_trial(state=TrialState.WAITING, system_attrs=attrs)
            self._storage.create_new_trial(self._study._study_id, template_trial=template)

    def release(self, claim: Claim, cause: str, seconds: float = 0.0) -> bool:
        """Give an unfinished trial back, to be continued by whoever claims it next. False if the claim was lost."""
        self._storage.let_go(claim.trial_id)
        with locked(self._paths.lock):
            trial = self._backend.open_trial(claim.trial_id)
            if not trial.held_with(claim.token):
                return False
            self._give_back(trial, cause, seconds)
        return True

    def _give_back(self, trial: OpenTrial, cause: str, seconds: float) -> None:
        gpus = float((trial.claim or {}).get("gpus", 0.0))
        history = interruptions.after(trial.released, cause, seconds, self._progress(trial), gpus)
        ending: list[Operation] = [SetState(trial.trial_id, TrialState.WAITING)]
        if interruptions.are_too_many(history, self._max_interruptions):
            record = interruptions.record(history)
            ending = [SetUserAttr(trial.trial_id, ATTRIBUTE, record), SetState(trial.trial_id, TrialState.FAIL)]
        released = SetSystemAttr(trial.trial_id, RELEASED, history)
        self._backend.apply([released, SetSystemAttr(trial.trial_id, CLAIM, None), *ending])

    def _progress(self, trial: OpenTrial) -> list[float]:
        """A trial's visible progress: how much it reported, and when it last wrote a checkpoint."""
        reports = len(self._storage.get_trial(trial.trial_id).intermediate_values)
        return [reports, interruptions.newest_file(self._paths.checkpoint(trial.number))]

    def confirm(self, claims: Sequence[Claim]) -> list[Claim]:
        """Those of the claims that are still held."""
        with locked(self._paths.lock):
            return [claim for claim in claims if self._backend.open_trial(claim.trial_id).held_with(claim.token)]

    def reap(self) -> list[int]:
        """Deliver the results that dead agents left behind, then release their trials; returns those numbers."""
        with locked(self._paths.lock):
            dead: dict[str, bool] = {}
            self._deliver(dead)
            lost = [trial for trial in self._overview().open if self._is_orphan(trial, dead)]
            for trial in lost:
                self._give_back(trial, "node failure", 0.0)
            self._registry.sweep()
        return [trial.number for trial in lost]

    def _deliver(self, dead: dict[str, bool]) -> None:
        for result in self._outbox.results():
            if self._is_dead(result.agent, dead):
                claim = Claim(result.trial_id, result.number, result.token, attempt=1)
                self._finish(claim, TrialState[result.state], result.values, result.record, result.reports)
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


def new_token() -> str:
    return secrets.token_hex(8)


def _first_waiting(overview: Overview) -> OpenTrial | None:
    waiting = (trial for trial in overview.open if trial.state == TrialState.WAITING and not trial.is_paused)
    return next(waiting, None)
