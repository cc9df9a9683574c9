"""A study of chosen trials that can only be read: what shows and ranks trials gives it to Optuna's own functions."""

from __future__ import annotations

import copy
from collections.abc import Container, Sequence
from typing import Any, NoReturn

import optuna
from optuna.storages import BaseStorage
from optuna.trial import FrozenTrial, TrialState

from aimlhpo.errors import StudyError
from aimlhpo.storage.base import ForwardingStorage

_WRITING = ("create_", "delete_", "set_")


def selected(study: optuna.Study, trials: Sequence[FrozenTrial]) -> optuna.Study:
    """The study with these of its trials alone, under their own numbers; one may be there several times.

    What would change it raises StudyError.
    """
    view = copy.copy(study)
    view._storage = _ReadOnlyStorage(study._storage, study._study_id, trials)
    return view


def _refuse(self: Any, *arguments: Any, **named: Any) -> NoReturn:
    raise StudyError("this study can only be read; to change it, load it with optuna.load_study")


class _SelectedTrials(ForwardingStorage):  # type: ignore[valid-type, misc]
    """Answers for one study from `trials`; everything else, about this study or others, is asked of `inner`."""

    def __init__(self, inner: BaseStorage, study_id: int, trials: Sequence[FrozenTrial]) -> None:
        self.inner, self._study_id, self._trials = inner, study_id, trials

    def get_all_trials(
        self, study_id: int, deepcopy: bool = True, states: Container[TrialState] | None = None
    ) -> list[FrozenTrial]:
        if study_id != self._study_id:
            found: list[FrozenTrial] = self.inner.get_all_trials(study_id, deepcopy=deepcopy, states=states)
            return found
        return [trial for trial in self._trials if states is None or trial.state in states]


_ReadOnlyStorage: type[_SelectedTrials] = type(
    "_ReadOnlyStorage",
    (_SelectedTrials,),
    {name: _refuse for name in BaseStorage.__abstractmethods__ if name.startswith(_WRITING)},
)
