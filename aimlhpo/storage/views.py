"""A study as pruners and samplers see it, where Optuna's own do not take it as it is."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import optuna
from optuna.storages import BaseStorage
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState

from aimlhpo.storage.base import PAUSED, ForwardingStorage, waits_at_rung

_Change = Callable[[FrozenTrial], FrozenTrial]


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
        trials = self.inner.get_all_trials(study_id, deepcopy=deepcopy, states=states)
        return [_changed(trial, self._pick) if trial.values is not None else trial for trial in trials]

    def _pick(self, trial: FrozenTrial) -> FrozenTrial:
        trial.values = [trial.values[self._position]]
        return trial


class _ForSampler(ForwardingStorage):  # type: ignore[valid-type, misc]
    """Paused trials are pruned ones, so that samplers learn from them before the study ends.

    With several metrics, pruned trials have no reports: TPE would rank them by the study's one direction.
    """

    def __init__(self, inner: BaseStorage, directions: int) -> None:
        self.inner, self._directions = inner, directions

    def get_all_trials(self, study_id: int, deepcopy: bool = True, states: Any = None) -> list[FrozenTrial]:
        trials = map(self._seen, self.inner.get_all_trials(study_id, deepcopy=deepcopy))
        return [trial for trial in trials if states is None or trial.state in states]

    def _seen(self, trial: FrozenTrial) -> FrozenTrial:
        if waits_at_rung(trial.state, trial.system_attrs.get(PAUSED)):
            trial = _changed(trial, self._end)
        hidden = trial.state == TrialState.PRUNED and self._directions > 1
        return _changed(trial, _without_reports) if hidden else trial

    def _end(self, trial: FrozenTrial) -> FrozenTrial:
        trial.state, trial.values = TrialState.PRUNED, last_report(trial, self._directions)
        return trial


def one_metric(study: optuna.Study, position: int) -> optuna.Study:
    """The study with its metric at `position` alone."""
    if len(study.directions) == 1:
        return study
    return _study(study, _OneMetric(study._storage, position))


def for_sampler(study: optuna.Study, *, pauses: bool) -> optuna.Study:
    """The study as every sampler takes it; `pauses`: whether its trials pause to be promoted."""
    directions = len(study.directions)
    return _study(study, _ForSampler(study._storage, directions)) if pauses or directions > 1 else study


def _study(study: optuna.Study, storage: BaseStorage) -> optuna.Study:
    return optuna.Study(study.study_name, storage, sampler=study.sampler, pruner=study.pruner)


def _changed(trial: FrozenTrial, change: _Change) -> FrozenTrial:
    return change(copy.copy(trial))


def last_report(trial: FrozenTrial, directions: int) -> list[float] | None:
    """A pruned trial's value, as in Optuna: its last report, where that is a number and there is one metric."""
    if directions != 1 or not trial.intermediate_values:
        return None
    value = trial.intermediate_values[max(trial.intermediate_values)]
    return None if value != value else [value]


def _without_reports(trial: FrozenTrial) -> FrozenTrial:
    trial.intermediate_values = {}
    return trial
