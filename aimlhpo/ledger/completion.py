"""How trials end: with a result, or given back to be continued by whoever claims them next.

A result writes the last reports, the record, the values and the state; a failed trial may be followed by another try.
An unfinished trial is given back with the history of its interruptions, or as if it had never been claimed.

A journal or Redis may keep the first operations of a batch alone. So the history names the claim that it has counted,
the state follows, and the claim is removed last, since nobody would ever look after a trial that is RUNNING without
one.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import optuna
from optuna.trial import FrozenTrial, TrialState, create_trial

from aimlhpo.config.paths import StudyPaths
from aimlhpo.ledger.checkpoints import newest_file
from aimlhpo.ledger.requests import Release, Result
from aimlhpo.search.sampling import after_trial, last_report
from aimlhpo.storage.attributes import RECORD, metric_attributes
from aimlhpo.storage.base import (
    BY_SECTION,
    CLAIM,
    PAUSED,
    RELEASED,
    SECTION,
    OpenTrial,
    OwnedStorage,
    PendingState,
    SetState,
    SetSystemAttr,
)
from aimlhpo.storage.trials import CONFIRMED, CONSTRAINTS, OPTUNA_CONSTRAINT

STOPPED_BY_USER = "stopped by user"
"""A cause of interruption that says nothing against the trial."""

RETRY = "aimlhpo:retry"


def spent_by_section(
    before: Mapping[str, Any] | None, claim: Mapping[str, Any] | None, seconds: float, gpu_seconds: float
) -> dict[str, Any]:
    """What a trial has taken in each section, with an attempt under this claim: an entry of its history or record.

    `before` is its history so far. Empty where no section is known.
    """
    spent, section = dict((before or {}).get(BY_SECTION, {})), (claim or {}).get(SECTION)
    if section is not None:
        known = spent.get(section, {"seconds": 0.0, "gpu_seconds": 0.0})
        spent[section] = {
            "seconds": known["seconds"] + seconds,
            "gpu_seconds": known["gpu_seconds"] + gpu_seconds,
        }
    return {BY_SECTION: spent} if spent else {}


def interruption_history(
    before: Mapping[str, Any] | None,
    cause: str,
    seconds: float,
    progress: list[float],
    claim: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """A trial's history with one more interruption in it; `seconds` is what this attempt took, under its `claim`.

    `fruitless` counts the interruptions in a row without progress.
    """
    gpus = float((claim or {}).get("gpus", 0.0))
    known = before or {"attempts": 0, "seconds": 0.0, "fruitless": 0, "progress": [0, 0]}
    moved = progress != known["progress"] or cause == STOPPED_BY_USER
    return {
        "attempts": known["attempts"] + 1,
        "seconds": known["seconds"] + seconds,
        "gpu_seconds": known.get("gpu_seconds", 0.0) + seconds * gpus,
        "cause": cause,
        "fruitless": 0 if moved else known["fruitless"] + 1,
        "progress": progress,
        **spent_by_section(before, claim, seconds, seconds * gpus),
    }


def _with_section(result: Result, trial: OpenTrial) -> Result:
    """The result with the section that its trial ran in, and what it took in each, in the record."""
    section = (trial.claim or {}).get(SECTION)
    before = {"seconds": trial.seconds, "gpu_seconds": trial.gpu_seconds}
    took = (result.record.get(key, known) - known for key, known in before.items())
    spent = spent_by_section(trial.released, trial.claim, *took)
    named = {SECTION: section} if section is not None else {}
    return replace(result, record={**result.record, **named, **spent}) if spent else result


class Completion:
    """Ends trials: writes results into the storage's open batch, and gives unfinished trials back.

    A failed trial is tried again `max_retries` times. After `max_interruptions` in a row without progress a trial
    fails.

    Runs in: the storage thread, under the ledger's lock.
    """

    def __init__(
        self, study: optuna.Study, storage: OwnedStorage, paths: StudyPaths, max_retries: int, max_interruptions: int
    ) -> None:
        self._study, self._storage, self._paths = study, storage, paths
        self.set_limits(max_retries, max_interruptions)

    def set_limits(self, max_retries: int, max_interruptions: int) -> None:
        """Go by other limits from now on."""
        self._max_retries, self._max_interruptions = max_retries, max_interruptions

    def finish(self, pending: PendingState, result: Result) -> bool:
        """Write a result, or what pauses its trial. False if the claim was lost, to anything but this very result."""
        trial = pending.find(result.trial_id) or self._storage.backend.open_trial(result.trial_id)
        if not trial.held_with(result.token):
            return trial.ended_with(result.token)
        self._storage.hold(result.trial_id)
        state = TrialState[result.state]
        self._write(_with_section(result, trial), state)
        if state == TrialState.WAITING:
            paused = {"rung": result.record["rung"], "token": result.token}
            pending.change(trial, state=state, claim=None, paused=paused)
        else:
            pending.end(trial, state)
        if state == TrialState.FAIL:
            pending.new += self._retry_of(result.trial_id)
        return True

    def _write(self, result: Result, state: TrialState) -> None:
        """The reports, the record and the metrics, then the state; a pause removes its claim after that."""
        storage, trial_id = self._storage, result.trial_id
        stored = storage.get_trial(trial_id).intermediate_values
        for step, value in result.reports:
            if stored.get(step) != value:
                storage.set_trial_intermediate_value(trial_id, step, value)
        trial, values = storage.get_trial(trial_id), result.values
        if state == TrialState.WAITING:
            values = None
            for key, attribute in self._pause_attributes(trial, result).items():
                storage.set_trial_system_attr(trial_id, key, attribute)
        elif state == TrialState.PRUNED:
            values = last_report(trial, len(self._study.directions))
        storage.set_trial_system_attr(trial_id, RECORD, result.record)
        for text, value in result.record.get(CONSTRAINTS, {}).items():
            storage.set_trial_system_attr(trial_id, f"{OPTUNA_CONSTRAINT}{text}", value)
        if state.is_finished():  # a paused trial goes on, and what it has returned is no result yet
            for name, metric in metric_attributes(trial, result.record.get("metrics") or {}).items():
                storage.set_trial_user_attr(trial_id, name, metric)
            after_trial(self._study, trial, state, values)
        storage.set_trial_state_values(trial_id, state, values)
        if state == TrialState.WAITING:
            storage.set_trial_system_attr(trial_id, CLAIM, None)

    def _pause_attributes(self, trial: FrozenTrial, result: Result) -> dict[str, Any]:
        """The system attributes of a trial that has reached the rung in the record. A pause is no interruption."""
        before = trial.system_attrs.get(RELEASED) or {}
        counted = before.get("token") == result.token  # by a batch that was cut off
        history = {
            "token": result.token,
            "attempts": before.get("attempts", 0) + (not counted),
            "seconds": result.record["seconds"],
            "gpu_seconds": result.record.get("gpu_seconds", 0.0),
            "cause": "paused",
            "fruitless": 0,
            "progress": self._progress(trial._trial_id, trial.number),
            **{key: value for key, value in result.record.items() if key == BY_SECTION},
        }
        return {PAUSED: {"rung": result.record["rung"], "token": result.token}, RELEASED: history}

    def _retry_of(self, trial_id: int) -> list[FrozenTrial]:
        """A failed trial's parameters to be tried again, as often as `max_retries` says, linked to the first trial.

        A training of a confirmation stays one, with the same seed.
        """
        trial = self._storage.get_trial(trial_id)
        before = trial.system_attrs.get(RETRY, {"of": trial.number, "count": 0})
        if before["count"] >= self._max_retries:
            return []
        link = {"of": before["of"], "count": before["count"] + 1}
        fixed = {**trial.system_attrs.get("fixed_params", {}), **trial.params}
        kept = {key: value for key, value in trial.system_attrs.items() if key == CONFIRMED}
        return [create_trial(state=TrialState.WAITING, system_attrs={**kept, "fixed_params": fixed, RETRY: link})]

    def release(self, pending: PendingState, release: Release) -> bool:
        """Give a trial back, or do what is missing where that was cut off. False if the claim was lost."""
        trial = pending.find(release.claim.trial_id)
        if trial is None or trial.token != release.claim.token:
            return False
        if release.cause is None:
            self._remove_claim(pending, trial)
        else:
            self._interrupt(pending, trial, release.cause, release.seconds)
        return True

    def release_for_dead(self, pending: PendingState, trial: OpenTrial) -> None:
        """Give a trial back in place of its agent."""
        if trial.begun:
            self._interrupt(pending, trial, "node failure", 0.0)
        else:
            self._remove_claim(pending, trial)

    def _remove_claim(self, pending: PendingState, trial: OpenTrial) -> None:
        pending.operations += [SetState(trial.trial_id, TrialState.WAITING), SetSystemAttr(trial.trial_id, CLAIM, None)]
        pending.change(trial, state=TrialState.WAITING, claim=None)

    def _interrupt(self, pending: PendingState, trial: OpenTrial, cause: str, seconds: float) -> None:
        if trial.released and trial.interrupted_with(trial.token):  # by a batch that was cut off
            history = trial.released
        else:
            progress = self._progress(trial.trial_id, trial.number)
            history = interruption_history(trial.released, cause, seconds, progress, trial.claim)
            history["token"] = trial.token
        pending.operations.append(SetSystemAttr(trial.trial_id, RELEASED, history))
        if history["fruitless"] < self._max_interruptions:
            self._remove_claim(pending, trial)
            return
        record = {
            "cause": history["cause"],
            "error": f"interrupted {history['fruitless']} times in a row without a new report or checkpoint",
            "seconds": history["seconds"],
            "gpu_seconds": history["gpu_seconds"],
            "attempts": history["attempts"],
            **{key: held[key] for held, key in ((history, BY_SECTION), (trial.claim or {}, SECTION)) if key in held},
        }
        failed = SetState(trial.trial_id, TrialState.FAIL)
        pending.operations += [SetSystemAttr(trial.trial_id, RECORD, record), failed]
        pending.end(trial, TrialState.FAIL)

    def _progress(self, trial_id: int, number: int) -> list[float]:
        """How far a trial has got, as seen from outside: how much it reported, and when it last wrote a checkpoint."""
        reports = len(self._storage.get_trial(trial_id).intermediate_values)
        return [reports, newest_file(self._paths.checkpoint(number))]
