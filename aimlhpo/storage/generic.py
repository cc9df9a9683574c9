"""Any storage of Optuna's, by its public interface."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from datetime import datetime

from optuna.storages import BaseStorage
from optuna.trial import FrozenTrial, TrialState

from aimlhpo.storage.base import OURS, OpenTrial, Operation, Overview, Place, SetParam, token_of
from aimlhpo.storage.journal import BatchingBackend, Journal

_OPEN = (TrialState.RUNNING, TrialState.WAITING)


class GenericBackend:
    """Reads what there is and picks; for storages that keep the study in memory, as the journals do."""

    def __init__(self, storage: BaseStorage) -> None:
        self._storage = storage

    def overview(self, study_id: int) -> Overview:
        states, unfinished = self._by_state(study_id)
        return Overview(
            complete=states[TrialState.COMPLETE],
            pruned=states[TrialState.PRUNED],
            failed=states[TrialState.FAIL],
            open=[_open_trial(trial) for trial in unfinished],
        )

    def _by_state(self, study_id: int) -> tuple[Counter[TrialState], list[FrozenTrial]]:
        if isinstance(self._storage, Journal):
            unfinished = self._storage.get_all_trials(study_id, deepcopy=False, states=_OPEN)
            return self._storage.tally(study_id).states, unfinished
        trials = self._storage.get_all_trials(study_id, deepcopy=False)
        return Counter(trial.state for trial in trials), [trial for trial in trials if trial.state in _OPEN]

    def latest_ends(self, study_id: int, most: int) -> Sequence[datetime]:
        states = (TrialState.COMPLETE, TrialState.PRUNED)
        trials = self._storage.get_all_trials(study_id, deepcopy=False, states=states)
        return sorted(trial.datetime_complete for trial in trials if trial.datetime_complete)[-most:]

    def open_trial(self, trial_id: int) -> OpenTrial:
        return _open_trial(self._storage.get_trial(trial_id))

    def introduce(self, operation: SetParam) -> None:
        operation.replay(self._storage)

    def apply(self, operations: Sequence[Operation]) -> None:
        with self._at_once():
            for operation in operations:
                operation.replay(self._storage)

    def commit(self, study_id: int, operations: Sequence[Operation], new: Sequence[FrozenTrial]) -> dict[str, Place]:
        with self._at_once():
            for operation in operations:
                operation.replay(self._storage)
            for trial in new:
                self._storage.create_new_trial(study_id, template_trial=trial)
        return self._places(study_id, {token for trial in new if (token := token_of(trial))})

    def _places(self, study_id: int, tokens: set[str]) -> dict[str, Place]:
        """A batch answers nothing: who made a trial finds it by the claim."""
        if not tokens:
            return {}
        running = self._storage.get_all_trials(study_id, deepcopy=False, states=(TrialState.RUNNING,))
        claimed = ((token_of(trial), Place(trial._trial_id, trial.number)) for trial in running)
        return {token: place for token, place in claimed if token in tokens}

    def _at_once(self) -> AbstractContextManager[None]:
        backend = getattr(self._storage, "_backend", None)
        return backend.batch() if isinstance(backend, BatchingBackend) else nullcontext()


def _open_trial(trial: FrozenTrial) -> OpenTrial:
    return OpenTrial(trial._trial_id, trial.number, trial.state, *(trial.system_attrs.get(key) for key in OURS))
