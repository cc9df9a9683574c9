"""How often a trial was interrupted, and whether it gets anywhere: what is kept with it when it is given back.
What a result writes: the last reports, the record, the values, and what a failed trial is followed by.
How an unfinished trial is given back: with the history of its interruptions, or as if it had never been claimed.

A journal or Redis may keep the first records of a batch alone. So the history names the claim, which is counted once;
the state follows; and the claim goes last, since nobody would ever look after a trial that is RUNNING without one.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import optuna
from optuna.trial import FrozenTrial, TrialState, create_trial

from aimlhpo.ledger.claims import pause_attributes
from aimlhpo.ledger.requests import Finish, PendingState, Release
from aimlhpo.paths import StudyPaths
from aimlhpo.search.sampling import after_trial
from aimlhpo.storage.base import CLAIM, RELEASED, OpenTrial, SetState, SetSystemAttr, SetUserAttr
from aimlhpo.storage.owned import OwnedStorage
from aimlhpo.storage.trials import ATTRIBUTE, CONSTRAINTS, OPTUNA_CONSTRAINT
from aimlhpo.storage.views import last_report

STOPPED_BY_USER = "stopped by user"
"""What `max_interruptions` is where nobody says otherwise."""


def interruption_history(
    before: Mapping[str, Any] | None, cause: str, seconds: float, progress: list[float], gpus: float = 0.0
) -> dict[str, Any]:
    """The trial's history with one more interruption in it; `seconds` is what this attempt took on its `gpus`."""
    known = before or {"attempts": 0, "seconds": 0.0, "fruitless": 0, "progress": [0, 0]}
    moved = progress != known["progress"] or cause == STOPPED_BY_USER
    return {
        "attempts": known["attempts"] + 1,
        "seconds": known["seconds"] + seconds,
        "gpu_seconds": known.get("gpu_seconds", 0.0) + seconds * gpus,
        "cause": cause,
        "fruitless": 0 if moved else known["fruitless"] + 1,
        "progress": progress,
    }


def too_many_interruptions(history: Mapping[str, Any], most: int) -> bool:
    """Whether the trial would only be interrupted again and again."""
    return bool(history["fruitless"] >= most)


def interruption_record(history: Mapping[str, Any]) -> dict[str, Any]:
    """What is kept with a trial that is given up."""
    return {
        "cause": history["cause"],
        "error": f"interrupted {history['fruitless']} times in a row without a new report or checkpoint",
        "seconds": history["seconds"],
        "gpu_seconds": history["gpu_seconds"],
        "attempts": history["attempts"],
    }


def newest_file(directory: Path) -> float:
    """When anything in the directory last changed, in seconds since the epoch; 0 where there is none."""
    times = [0.0]
    for folder, _, names in os.walk(directory):
        for name in names:
            try:
                times.append(os.stat(os.path.join(folder, name)).st_mtime)
            except FileNotFoundError:  # replaced meanwhile
                continue
    return max(times)


RETRY = "aimlhpo:retry"


class Finishing:
    """Writes to the storage's open batch."""

    def __init__(self, study: optuna.Study, storage: OwnedStorage, paths: StudyPaths, max_retries: int) -> None:
        self._study, self._storage, self._paths = study, storage, paths
        self._max_retries = max_retries

    def finish(self, draft: PendingState, finish: Finish) -> bool:
        """Write a result, or what pauses its trial. False if the claim was lost, to anything but this very result."""
        claim = finish.claim
        stored = draft.find(claim.trial_id) or self._storage.backend.open_trial(claim.trial_id)
        if not stored.held_with(claim.token):
            return stored.ended_with(claim.token)
        self._storage.hold(claim.trial_id)
        self._write(finish)
        self._note(draft, stored, finish)
        return True

    def _note(self, draft: PendingState, trial: OpenTrial, finish: Finish) -> None:
        if finish.state == TrialState.WAITING:
            rung = {"rung": finish.record["rung"], "token": finish.claim.token}
            draft.change(trial, state=TrialState.WAITING, claim=None, paused=rung)
        else:
            draft.end(trial, finish.state)
        if finish.state == TrialState.FAIL:
            draft.new += self._retry_of(finish.claim.trial_id)

    def _write(self, finish: Finish) -> None:
        """The result, the state last; a pause gives its claim up after that: RUNNING without one, it would be lost."""
        trial_id = finish.claim.trial_id
        self._write_reports(trial_id, finish.reports)
        trial, values = self._storage.get_trial(trial_id), finish.values
        if finish.state == TrialState.WAITING:
            values = None
            self._pause(trial, finish)
        elif finish.state == TrialState.PRUNED:
            values = last_report(trial, len(self._study.directions))
        self._write_record(trial_id, finish.record)
        if finish.state.is_finished():
            after_trial(self._study, trial, finish.state, values)
        self._storage.set_trial_state_values(trial_id, finish.state, values)
        if finish.state == TrialState.WAITING:
            self._storage.set_trial_system_attr(trial_id, CLAIM, None)

    @property
    def retries(self) -> bool:
        """Whether failed trials may be tried again."""
        return self._max_retries > 0

    def _retry_of(self, trial_id: int) -> list[FrozenTrial]:
        """A failed trial's parameters to be tried again, as often as `max_retries` says, linked to the first trial."""
        trial = self._storage.get_trial(trial_id)
        before = trial.system_attrs.get(RETRY, {"of": trial.number, "count": 0})
        if before["count"] >= self._max_retries:
            return []
        link = {"of": before["of"], "count": before["count"] + 1}
        fixed = {**trial.system_attrs.get("fixed_params", {}), **trial.params}
        return [create_trial(state=TrialState.WAITING, system_attrs={"fixed_params": fixed, RETRY: link})]

    def progress(self, trial_id: int, number: int) -> list[float]:
        """A trial's visible progress: how much it reported, and when it last wrote a checkpoint."""
        reports = len(self._storage.get_trial(trial_id).intermediate_values)
        return [reports, newest_file(self._paths.checkpoint(number))]

    def _write_reports(self, trial_id: int, reports: Iterable[tuple[int, float]]) -> None:
        stored = self._storage.get_trial(trial_id).intermediate_values
        for step, value in reports:
            if stored.get(step) != value:
                self._storage.set_trial_intermediate_value(trial_id, step, value)

    def _write_record(self, trial_id: int, record: dict[str, Any]) -> None:
        self._storage.set_trial_user_attr(trial_id, ATTRIBUTE, record)
        for text, value in record.get(CONSTRAINTS, {}).items():
            self._storage.set_trial_system_attr(trial_id, f"{OPTUNA_CONSTRAINT}{text}", value)

    def _pause(self, trial: FrozenTrial, finish: Finish) -> None:
        progress = self.progress(trial._trial_id, trial.number)
        for key, value in pause_attributes(trial, finish.claim.token, finish.record, progress).items():
            self._storage.set_trial_system_attr(trial._trial_id, key, value)


class Releasing:
    """Gives trials back to be continued, and up after `most` interruptions in a row without progress.

    `progress` tells a trial's by its id and its number.
    """

    def __init__(self, progress: Callable[[int, int], list[float]], most: int) -> None:
        self._progress, self._most = progress, most

    def release(self, draft: PendingState, release: Release) -> bool:
        """Give a trial back, or do what is missing where that was cut off. False if the claim was lost."""
        trial = draft.find(release.claim.trial_id)
        if trial is None or trial.token != release.claim.token:
            return False
        if release.cause is None:
            self._unclaim(draft, trial)
        else:
            self._interrupt(draft, trial, release.cause, release.seconds)
        return True

    def take_from_dead(self, draft: PendingState, trial: OpenTrial) -> None:
        """Give a trial back for its agent."""
        if trial.begun:
            self._interrupt(draft, trial, "node failure", 0.0)
        else:
            self._unclaim(draft, trial)

    def _unclaim(self, draft: PendingState, trial: OpenTrial) -> None:
        draft.write([SetState(trial.trial_id, TrialState.WAITING), SetSystemAttr(trial.trial_id, CLAIM, None)])
        draft.change(trial, state=TrialState.WAITING, claim=None)

    def _interrupt(self, draft: PendingState, trial: OpenTrial, cause: str, seconds: float) -> None:
        history = self._history(trial, cause, seconds)
        draft.write([SetSystemAttr(trial.trial_id, RELEASED, history)])
        if too_many_interruptions(history, self._most):
            self._give_up(draft, trial, history)
        else:
            self._unclaim(draft, trial)

    def _history(self, trial: OpenTrial, cause: str, seconds: float) -> dict[str, Any]:
        if trial.released and trial.interrupted_with(trial.token):
            return trial.released
        gpus = float((trial.claim or {}).get("gpus", 0.0))
        progress = self._progress(trial.trial_id, trial.number)
        return {**interruption_history(trial.released, cause, seconds, progress, gpus), "token": trial.token}

    def _give_up(self, draft: PendingState, trial: OpenTrial, history: dict[str, Any]) -> None:
        record = interruption_record(history)
        draft.write([SetUserAttr(trial.trial_id, ATTRIBUTE, record), SetState(trial.trial_id, TrialState.FAIL)])
        draft.end(trial, TrialState.FAIL)
