"""What a result writes: the last reports, the record, the values, and what a failed trial is followed by."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import optuna
from optuna.trial import FrozenTrial, TrialState, create_trial

from aimlhpo import interruptions
from aimlhpo.backends import OpenTrial, OwnedStorage
from aimlhpo.backends.backend import CLAIM
from aimlhpo.backends.views import last_report
from aimlhpo.ledger import pausing
from aimlhpo.ledger.draft import Draft
from aimlhpo.ledger.turn import Finish
from aimlhpo.paths import StudyPaths
from aimlhpo.records import ATTRIBUTE, CONSTRAINTS, OPTUNA_CONSTRAINT
from aimlhpo.sampling.learning import after_trial

RETRY = "aimlhpo:retry"


class Finishing:
    """Writes to the storage's open batch."""

    def __init__(self, study: optuna.Study, storage: OwnedStorage, paths: StudyPaths, max_retries: int) -> None:
        self._study, self._storage, self._paths = study, storage, paths
        self._max_retries = max_retries

    def finish(self, draft: Draft, finish: Finish) -> bool:
        """Write a result, or what pauses its trial. False if the claim was lost, to anything but this very result."""
        claim = finish.claim
        stored = draft.find(claim.trial_id) or self._storage.backend.open_trial(claim.trial_id)
        if not stored.held_with(claim.token):
            return stored.ended_with(claim.token)
        self._storage.hold(claim.trial_id)
        self._write(finish)
        self._note(draft, stored, finish)
        return True

    def _note(self, draft: Draft, trial: OpenTrial, finish: Finish) -> None:
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
        return [reports, interruptions.newest_file(self._paths.checkpoint(number))]

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
        for key, value in pausing.attributes(trial, finish.claim.token, finish.record, progress).items():
            self._storage.set_trial_system_attr(trial._trial_id, key, value)
