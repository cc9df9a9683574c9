"""Optuna's cached database storage, with a lean reading of trials."""

from __future__ import annotations

import copy
from collections.abc import Container, Sequence
from dataclasses import dataclass
from itertools import islice

from optuna.storages import RDBStorage
from optuna.storages._cached_storage import _CachedStorage, _StudyInfo
from optuna.trial import FrozenTrial, TrialState
from sqlalchemy import Connection

from aimlhpo.backends import rows
from aimlhpo.backends.collector import paused
from aimlhpo.backends.lazy import LazyTrial

_AT_ONCE = 1000  # trials whose intermediate values are read together
_FINISHED = frozenset({TrialState.COMPLETE, TrialState.PRUNED, TrialState.FAIL})


class Database(_CachedStorage):
    """Reads a finished trial once, without its intermediate values until they are asked for.

    Trials that are still open are read anew each time, where their state is asked for at all.
    """

    def __init__(self, backend: RDBStorage) -> None:
        super().__init__(backend)
        self._lists: dict[tuple[int, frozenset[TrialState]], list[FrozenTrial]] = {}
        self._asked_before = False

    def get_all_trials(
        self, study_id: int, deepcopy: bool = True, states: Container[TrialState] | None = None
    ) -> list[FrozenTrial]:
        wanted = frozenset(state for state in TrialState if states is None or state in states)
        with self._lock:
            if self._is_new(study_id) and TrialState.COMPLETE not in wanted:
                trials = self._few(study_id, wanted)
            else:
                self._refresh(study_id, with_open=not wanted <= _FINISHED)
                trials = list(self._chosen(study_id, wanted))
        return copy.deepcopy(trials) if deepcopy else trials

    def get_n_trials(self, study_id: int, state: tuple[TrialState, ...] | TrialState | None = None) -> int:
        states = (state,) if isinstance(state, TrialState) else tuple(TrialState) if state is None else state
        self._backend.get_study_name_from_id(study_id)  # raises KeyError where there is no such study
        with self._connect() as connection:
            return rows.number(connection, study_id, states)

    def _is_new(self, study_id: int) -> bool:
        return study_id not in self._studies or self._studies[study_id].last_finished_trial_id < 0

    def _few(self, study_id: int, wanted: frozenset[TrialState]) -> list[FrozenTrial]:
        """Trials in states that few are in, read for somebody who may ask for no others; nothing is kept."""
        with self._connect() as connection:
            found = rows.in_states(connection, study_id, wanted)
            return list(rows.build(connection, study_id, found, lazily=_Reading(self, study_id)))

    def delete_study(self, study_id: int) -> None:
        super().delete_study(study_id)
        self._forget_lists(study_id)

    def _chosen(self, study_id: int, wanted: frozenset[TrialState]) -> Sequence[FrozenTrial]:
        known = self._lists.get((study_id, wanted))
        if known is None:
            trials = self._studies[study_id].trials
            known = [trials[number] for number in sorted(trials) if trials[number].state in wanted]
            self._lists[study_id, wanted] = known
        return known

    def _read_trials_from_remote_storage(self, study_id: int) -> None:
        with self._lock:
            self._refresh(study_id, with_open=True)

    def _refresh(self, study_id: int, *, with_open: bool) -> None:
        study = self._studies.setdefault(study_id, _StudyInfo())
        with self._connect() as connection, paused():
            found = rows.changed(connection, study_id, study.last_finished_trial_id, study.unfinished_trial_ids)
            study.unfinished_trial_ids.update(row.trial_id for row in found)
            wanted = [row for row in found if with_open or row.state in _FINISHED]
            trials = rows.build(connection, study_id, wanted, lazily=_Reading(self, study_id))
        if trials:
            self._keep(study_id, study, trials)
        elif not study.trials:
            self._backend.get_study_name_from_id(study_id)  # raises KeyError where there is no such study

    def _keep(self, study_id: int, study: _StudyInfo, trials: Sequence[FrozenTrial]) -> None:
        self._add_trials_to_cache(study_id, list(trials))
        self._forget_lists(study_id)
        finished = {trial._trial_id for trial in trials if trial.state.is_finished()}
        study.unfinished_trial_ids -= finished
        study.last_finished_trial_id = max(study.last_finished_trial_id, *finished, -1)

    def _forget_lists(self, study_id: int) -> None:
        self._lists = {key: known for key, known in self._lists.items() if key[0] != study_id}

    def read_curve(self, study_id: int, trial: LazyTrial) -> None:
        """Read the intermediate values of a trial; of the next ones of its state, too, for one who asks on."""
        asks_on = self._asked_before and trial.state.is_finished()
        others = self._without_curves(study_id, trial) if asks_on else []
        self._asked_before = True
        last = others[-1]._trial_id if others else trial._trial_id
        with self._connect() as connection:
            found = rows.curves(connection, study_id, trial._trial_id, last, trial.state if asks_on else None)
        for each in (trial, *others):
            each.intermediate_values = found.get(each._trial_id, {})

    def _without_curves(self, study_id: int, trial: LazyTrial) -> list[LazyTrial]:
        trials = self._studies[study_id].trials if study_id in self._studies else {}
        later = (other for number, other in sorted(trials.items()) if number > trial.number)
        alike = (other for other in later if other.state == trial.state and isinstance(other, LazyTrial))
        return list(islice((other for other in alike if not other.has_curve), _AT_ONCE))

    def _connect(self) -> Connection:
        return self._backend.engine.execution_options(isolation_level="AUTOCOMMIT").connect()


@dataclass(frozen=True)
class _Reading:
    """Where the trials of a study find their intermediate values."""

    database: Database
    study_id: int

    def read(self, trial: LazyTrial) -> None:
        self.database.read_curve(self.study_id, trial)
