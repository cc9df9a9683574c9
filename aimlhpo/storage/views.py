"""A study as pruners and samplers see it, where Optuna's own do not take it as it is.

`one_metric` shows a pruner one of several metrics; `for_sampler` shows a sampler paused trials as pruned ones.
Both are used by the process that samples or prunes: the agent's storage thread, and the sampling process.
"""

from __future__ import annotations

import copy
from typing import Any

import optuna
from optuna.storages import BaseStorage
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState

from aimlhpo.storage.base import PAUSED, ForwardingStorage, waits_at_rung


def one_metric(study: optuna.Study, position: int) -> optuna.Study:
    """The study with its metric at `position` alone."""
    if len(study.directions) == 1:
        return study
    return _with_storage(study, _OneMetric(study._storage, position))


def for_sampler(study: optuna.Study, *, pauses: bool) -> optuna.Study:
    """The study as every sampler takes it; `pauses`: whether its trials pause to be promoted."""
    directions = len(study.directions)
    return _with_storage(study, _ForSampler(study._storage, directions)) if pauses or directions > 1 else study


def _with_storage(study: optuna.Study, storage: BaseStorage) -> optuna.Study:
    return optuna.Study(study.study_name, storage, sampler=study.sampler, pruner=study.pruner)


def last_report(trial: FrozenTrial, directions: int) -> list[float] | None:
    """A pruned trial's value, as in Optuna: its last report, where that is a number and there is one metric."""
    if directions != 1 or not trial.intermediate_values:
        return None
    value = trial.intermediate_values[max(trial.intermediate_values)]
    return None if value != value else [value]


class _OneMetric(ForwardingStorage):  # type: ignore[valid-type, misc]
    """Has one direction, and one value for each trial: those of one of several metrics."""

    def __init__(self, inner: BaseStorage, position: int) -> None:
        self.inner, self._position = inner, position

    def get_study_directions(self, study_id: int) -> list[StudyDirection]:
        return [self.inner.get_study_directions(study_id)[self._position]]

    def get_best_trial(self, study_id: int) -> FrozenTrial:
        """Raises ValueError where no trial is complete."""
        complete = self.get_all_trials(study_id, deepcopy=False, states=(TrialState.COMPLETE,))
        if not complete:
            raise ValueError("no trials are complete yet")
        maximize = self.get_study_directions(study_id)[0] == StudyDirection.MAXIMIZE
        return (max if maximize else min)(complete, key=lambda trial: trial.values[0])

    def get_all_trials(self, study_id: int, deepcopy: bool = True, states: Any = None) -> list[FrozenTrial]:
        seen = []
        for trial in self.inner.get_all_trials(study_id, deepcopy=deepcopy, states=states):
            if trial.values is not None:
                trial = copy.copy(trial)
                trial.values = [trial.values[self._position]]
            seen.append(trial)
        return seen


class _ForSampler(ForwardingStorage):  # type: ignore[valid-type, misc]
    """Paused trials are pruned ones, so that samplers learn from them before the study ends.

    With several metrics, pruned trials have no reports: TPE would rank them by the study's one direction.
    """

    def __init__(self, inner: BaseStorage, directions: int) -> None:
        self.inner, self._directions = inner, directions

    def get_all_trials(self, study_id: int, deepcopy: bool = True, states: Any = None) -> list[FrozenTrial]:
        seen = []
        for trial in self.inner.get_all_trials(study_id, deepcopy=deepcopy):
            if waits_at_rung(trial.state, trial.system_attrs.get(PAUSED)):
                trial = copy.copy(trial)
                trial.state, trial.values = TrialState.PRUNED, last_report(trial, self._directions)
            if trial.state == TrialState.PRUNED and self._directions > 1:
                trial = copy.copy(trial)
                trial.intermediate_values = {}
            if states is None or trial.state in states:
                seen.append(trial)
        return seen
