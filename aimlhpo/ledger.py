"""The single place that decides who runs which trial; the exact budget lives here and nowhere else.

Every decision is taken under one lock, from what the storage holds at that moment:

    WAITING --claim--> RUNNING --finish--> COMPLETE, PRUNED or FAIL
       ^                  |
       '-----release------'      (interrupted, or its agent is dead)

A claim writes the owner's token in the same breath as the state; finish and release check it, so that an agent that
lost its claim while it was stopped or cut off cannot overwrite what others have done since.
"""

from __future__ import annotations

import secrets
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import Enum
from typing import Any

import optuna
from optuna.trial import FrozenTrial, TrialState, create_trial

from aimlhpo.leases import Registry
from aimlhpo.locks import locked
from aimlhpo.paths import StudyPaths
from aimlhpo.records import ATTRIBUTE

CLAIM = "aimlhpo:claim"
RELEASED = "aimlhpo:released"

FINISHED = (TrialState.COMPLETE, TrialState.PRUNED)


@dataclass(frozen=True)
class Counts:
    """Trials of the study by state."""

    complete: int = 0
    pruned: int = 0
    failed: int = 0
    running: int = 0
    waiting: int = 0

    @property
    def finished(self) -> int:
        """What the budget counts."""
        return self.complete + self.pruned


@dataclass(frozen=True)
class Claim:
    """The right to run one trial, for as long as the token stands in the storage."""

    trial_id: int
    number: int
    token: str
    attempt: int


class Nothing(Enum):
    """Why there is no trial to claim."""

    DONE = "the budget is finished"
    WAIT = "all that is left of the budget is running"


class Ledger:
    """Claims, finishes and releases the trials of one study for one agent."""

    def __init__(
        self, study: optuna.Study, paths: StudyPaths, n_trials: int | None, agent: str, registry: Registry
    ) -> None:
        self._study = study
        self._storage = study._storage
        self._paths = paths
        self._n_trials = n_trials
        self._agent = agent
        self._registry = registry

    def claim(self, slot: int, device: str, token: str | None = None) -> Claim | Nothing:
        """The next trial for a slot: an interrupted or enqueued one before a new one.

        A repeated call with the same token returns the claim that an earlier call made before it was cut short.
        """
        token = token or new_token()
        owner = {"agent": self._agent, "token": token, "slot": slot, "device": device}
        with locked(self._paths.lock):
            trials = self._trials()
            mine = next((trial for trial in trials if _holds(trial, token)), None)
            return self._as_claim(mine, token) if mine else self._claim_next(trials, owner)

    def _claim_next(self, trials: Sequence[FrozenTrial], owner: dict[str, Any]) -> Claim | Nothing:
        counts = count(trials)
        if self._n_trials is not None and counts.finished >= self._n_trials:
            return Nothing.DONE
        if self._n_trials is not None and counts.finished + counts.running >= self._n_trials:
            return Nothing.WAIT
        waiting = next((trial for trial in trials if trial.state == TrialState.WAITING), None)
        return self._take(waiting, owner) if waiting else self._create(owner)

    def _take(self, trial: FrozenTrial, owner: dict[str, Any]) -> Claim:
        self._storage.set_trial_system_attr(trial._trial_id, CLAIM, owner)
        self._storage.set_trial_state_values(trial._trial_id, TrialState.RUNNING)
        return self._as_claim(trial, owner["token"])

    def _create(self, owner: dict[str, Any]) -> Claim:
        template = create_trial(state=TrialState.RUNNING, system_attrs={CLAIM: owner})
        template.datetime_start = datetime.now()
        trial_id = self._storage.create_new_trial(self._study._study_id, template_trial=template)
        return Claim(trial_id, self._storage.get_trial_number_from_id(trial_id), owner["token"], attempt=1)

    def _as_claim(self, trial: FrozenTrial, token: str) -> Claim:
        return Claim(trial._trial_id, trial.number, token, attempt=attempts(trial) + 1)

    def finish(self, claim: Claim, state: TrialState, values: Sequence[float] | None, record: dict[str, Any]) -> bool:
        """Write a trial's result. False if the claim was lost meanwhile: then nothing is written."""
        with locked(self._paths.lock):
            trial = self._storage.get_trial(claim.trial_id)
            if trial.state.is_finished() and _token(trial) == claim.token:
                return True
            if not _holds(trial, claim.token):
                return False
            if state == TrialState.PRUNED:
                values = _last_report(trial, len(self._study.directions))
            self._storage.set_trial_user_attr(claim.trial_id, ATTRIBUTE, record)
            self._study.sampler.after_trial(self._study, trial, state, values)
            self._storage.set_trial_state_values(claim.trial_id, state, values)
        return True

    def release(self, claim: Claim, cause: str, seconds: float = 0.0) -> bool:
        """Give an unfinished trial back, to be continued by whoever claims it next. False if the claim was lost."""
        with locked(self._paths.lock):
            trial = self._storage.get_trial(claim.trial_id)
            if not _holds(trial, claim.token):
                return False
            self._give_back(trial, cause, seconds)
        return True

    def _give_back(self, trial: FrozenTrial, cause: str, seconds: float) -> None:
        history = trial.system_attrs.get(RELEASED, {"attempts": 0, "seconds": 0.0})
        history = {
            "attempts": history["attempts"] + 1,
            "seconds": history["seconds"] + seconds,
            "cause": cause,
        }
        self._storage.set_trial_system_attr(trial._trial_id, RELEASED, history)
        self._storage.set_trial_system_attr(trial._trial_id, CLAIM, None)
        self._storage.set_trial_state_values(trial._trial_id, TrialState.WAITING)

    def confirm(self, claims: Sequence[Claim]) -> list[Claim]:
        """Those of the claims that are still held."""
        with locked(self._paths.lock):
            return [claim for claim in claims if _holds(self._storage.get_trial(claim.trial_id), claim.token)]

    def reap(self) -> list[int]:
        """Release the trials whose agents are dead; returns their numbers."""
        with locked(self._paths.lock):
            dead: dict[str, bool] = {}
            lost = [trial for trial in self._trials() if self._is_orphan(trial, dead)]
            for trial in lost:
                self._give_back(trial, "node failure", 0.0)
            self._registry.sweep()
        return [trial.number for trial in lost]

    def _is_orphan(self, trial: FrozenTrial, dead: dict[str, bool]) -> bool:
        owner = trial.system_attrs.get(CLAIM) if trial.state == TrialState.RUNNING else None
        if not owner:
            return False
        agent = owner["agent"]
        if agent not in dead:
            dead[agent] = self._registry.is_dead(agent)
        return dead[agent]

    def counts(self) -> Counts:
        return count(self._trials())

    def _trials(self) -> list[FrozenTrial]:
        return self._storage.get_all_trials(self._study._study_id, deepcopy=False)


def new_token() -> str:
    return secrets.token_hex(8)


def count(trials: Sequence[FrozenTrial]) -> Counts:
    """Count by state; a RUNNING trial that no agent claimed belongs to somebody else and is left out."""
    states = Counter(trial.state for trial in trials if trial.state != TrialState.RUNNING or _token(trial))
    return Counts(
        complete=states[TrialState.COMPLETE],
        pruned=states[TrialState.PRUNED],
        failed=states[TrialState.FAIL],
        running=states[TrialState.RUNNING],
        waiting=states[TrialState.WAITING],
    )


def attempts(trial: FrozenTrial) -> int:
    """How often the trial was begun and given back."""
    return int(trial.system_attrs.get(RELEASED, {}).get("attempts", 0))


def _token(trial: FrozenTrial) -> str | None:
    return (trial.system_attrs.get(CLAIM) or {}).get("token")


def _holds(trial: FrozenTrial, token: str) -> bool:
    return trial.state == TrialState.RUNNING and _token(trial) == token


def _last_report(trial: FrozenTrial, directions: int) -> list[float] | None:
    """A pruned trial's value, as in Optuna: its last report, where that is a number and there is one metric."""
    if directions != 1 or not trial.intermediate_values:
        return None
    value = trial.intermediate_values[max(trial.intermediate_values)]
    return None if value != value else [value]
