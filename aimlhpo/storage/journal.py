"""Optuna's journal storage, faster: opened from a snapshot, replayed with less copying, written to in batches.

It reads and writes the same journal as Optuna's class, of which it relies on private names (`optuna_internals`); where
these are not supported, Optuna's class takes its place, on the same `BatchingBackend`.

JournalReplay    what a journal's records say, applied one by one: Optuna's own rules, with less copying
Journal          the storage; whoever opens a journal that has grown much since its snapshot writes a new one at once,
                 and whoever goes on reading one does so from time to time, in a thread of its own
JournalBackend   what the ledger asks and writes: a batch of writes is appended at once
"""

from __future__ import annotations

import copy
import logging
import threading
import time
import uuid
from collections import Counter
from collections.abc import Container, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Any

from optuna.distributions import BaseDistribution, check_distribution_compatibility
from optuna.storages import JournalStorage
from optuna.trial import FrozenTrial, TrialState

from aimlhpo.storage.base import (
    CHANGES,
    FINISHED,
    UNFINISHED,
    Backend,
    Overview,
    open_trial_of,
    overview_of,
)
from aimlhpo.storage.journal_file import BatchingBackend, Position
from aimlhpo.storage.journal_snapshot import SnapshotContents, covered_by, load_snapshot, save_snapshot
from aimlhpo.storage.optuna_internals import (
    JournalOperation,
    JournalStorageReplayResult,
    collection_paused,
    shared_distribution,
)

logger = logging.getLogger(__name__)

LEAST_TAIL, TAIL_SHARE = 4 << 20, 0.1  # a snapshot is due when this many bytes, and this share of it, came after it
_PAUSE = 60.0  # seconds between two attempts to write one

_FINISHED = frozenset(FINISHED)
_APPLY = {
    operation.value: f"_apply_{operation.name.lower()}"
    for operation in JournalOperation
    if operation is not JournalOperation.DISCARD_TRIALS  # which Optuna ignores, too
}


@dataclass
class Tally:
    """Trials of a study by state, and the ids of those that are not finished."""

    states: Counter[TrialState] = field(default_factory=Counter)
    open: dict[int, None] = field(default_factory=dict)


class JournalReplay(JournalStorageReplayResult):
    """The studies and trials of a journal.

    Attributes:
        loading: nobody else has seen the trials yet, so that reports are put into them without a copy.
    """

    def __init__(self, worker_id_prefix: str) -> None:
        super().__init__(worker_id_prefix)
        self.loading = True
        self._last_created_trial_id_by_this_process = -1  # read after a trial was appended in a batch, not yet read
        self._endings = 0
        self._tallies: dict[int, Tally] = {}
        self._distributions: dict[tuple[int, str], BaseDistribution] = {}
        self._lists: dict[tuple[int, frozenset[TrialState]], tuple[int, list[FrozenTrial]]] = {}

    def contents(self) -> SnapshotContents:
        """A copy of all that is known, to be called while nothing changes it; trials themselves are never changed."""
        study_ids = [self._trial_id_to_study_id[trial_id] for trial_id in self._trials]
        return SnapshotContents(
            list(self._studies.values()), list(self._trials.values()), study_ids, self._next_study_id
        )

    def start_from(self, contents: SnapshotContents) -> None:
        """Take over what a snapshot holds."""
        self._studies = {study._study_id: copy.copy(study) for study in contents.studies}
        self._study_id_to_trial_ids = {study_id: [] for study_id in range(contents.next_study_id)}
        self._next_study_id = contents.next_study_id
        for trial, study_id in zip(contents.trials, contents.study_ids, strict=True):
            trial = trial if trial.state.is_finished() else copy.deepcopy(trial)
            self._trials[trial._trial_id] = trial
            self._trial_id_to_study_id[trial._trial_id] = study_id
            self._study_id_to_trial_ids[study_id].append(trial._trial_id)
            self._note_new(study_id, trial)

    def tally(self, study_id: int) -> Tally:
        return self._tallies.setdefault(study_id, Tally())

    def get_all_trials(self, study_id: int, states: Container[TrialState] | None) -> list[FrozenTrial]:
        """The trials in these states; lists of finished ones are kept until another trial ends."""
        self.get_study(study_id)  # raises KeyError where there is no such study
        wanted = frozenset(state for state in TrialState if states is None or state in states)
        finished: list[FrozenTrial] = []
        if key := wanted & _FINISHED:
            endings, finished = self._lists.get((study_id, key), (-1, []))
            if endings != self._endings:
                finished = super().get_all_trials(study_id, key)
                self._lists[study_id, key] = self._endings, finished
        if wanted <= _FINISHED:
            return list(finished)
        opened = (self._trials[trial_id] for trial_id in self.tally(study_id).open)
        return sorted(
            [*finished, *(trial for trial in opened if trial.state in wanted)], key=lambda trial: trial.number
        )

    def apply_logs(self, logs: Iterable[dict[str, Any]]) -> None:
        for log in logs:
            self.log_number_read += 1
            name = _APPLY.get(log["op_code"])
            if name is not None:
                getattr(self, name)(log)

    def _apply_delete_study(self, log: dict[str, Any]) -> None:
        super()._apply_delete_study(log)
        self._lists = {}

    def _apply_create_trial(self, log: dict[str, Any]) -> None:
        before = len(self._trials)
        super()._apply_create_trial(log)
        if len(self._trials) > before:
            self._note_new(log["study_id"], self._trials[before])

    def _note_new(self, study_id: int, trial: FrozenTrial) -> None:
        """Count a trial, and remember its distributions: the study's later trials must be compatible with them."""
        self._note_state(study_id, None, trial)
        for name, distribution in trial.distributions.items():
            self._distributions.setdefault((study_id, name), distribution)

    def _note_state(self, study_id: int, before: TrialState | None, trial: FrozenTrial) -> None:
        tally = self.tally(study_id)
        tally.states[trial.state] += 1
        if before is not None:
            tally.states[before] -= 1
        if trial.state.is_finished():
            tally.open.pop(trial._trial_id, None)
            self._endings += 1
        else:
            tally.open[trial._trial_id] = None

    def _apply_set_trial_state_values(self, log: dict[str, Any]) -> None:
        before = self._trials.get(log["trial_id"])
        super()._apply_set_trial_state_values(log)
        after = self._trials.get(log["trial_id"])
        if before is not None and after is not None and after is not before:
            self._note_state(self._trial_id_to_study_id[log["trial_id"]], before.state, after)

    def _apply_set_trial_param(self, log: dict[str, Any]) -> None:
        trial_id, name, distribution = log["trial_id"], log["param_name"], shared_distribution(log["distribution"])
        if not self._trial_exists_and_updatable(trial_id, log):
            return
        try:
            known = self._distributions.setdefault((self._trial_id_to_study_id[trial_id], name), distribution)
            check_distribution_compatibility(known, distribution)
        except ValueError:
            if self._is_issued_by_this_worker(log):
                raise
            return
        trial = copy.copy(self._trials[trial_id])
        trial.params = {**trial.params, name: distribution.to_external_repr(log["param_value_internal"])}
        trial.distributions = {**trial.distributions, name: distribution}
        self._trials[trial_id] = trial

    def _apply_set_trial_intermediate_value(self, log: dict[str, Any]) -> None:
        if not self.loading:
            super()._apply_set_trial_intermediate_value(log)
            return
        trial = self._trials.get(log["trial_id"])
        if trial is not None and not trial.state.is_finished():
            trial.intermediate_values[log["step"]] = log["intermediate_value"]


class Journal(JournalStorage):
    """A journal file as an Optuna storage; it may be used by several threads, as Optuna's class may."""

    _backend: BatchingBackend
    _replay_result: JournalReplay

    def __init__(self, backend: BatchingBackend) -> None:
        self._backend = backend
        self._open()

    def __getstate__(self) -> dict[Any, Any]:
        return {"_backend": self._backend}

    def __setstate__(self, state: dict[Any, Any]) -> None:
        self.__dict__.update(state)
        self._open()

    def _open(self) -> None:
        # In place of JournalStorage.__init__, which reads the whole journal.
        self._worker_id_prefix = str(uuid.uuid4()) + "-"
        self._thread_lock = threading.Lock()
        self._writer: threading.Thread | None = None
        self._next_attempt = 0.0
        self._covered = 0  # bytes of the journal that its snapshot covers
        with self._thread_lock, collection_paused():
            self._replay_result = JournalReplay(self._worker_id_prefix)
            found = load_snapshot(self._backend.path)
            if found is not None:
                covered, contents = found
                self._replay_result.start_from(contents)
                self._replay_result.log_number_read = covered.records
                self._backend.position = covered
                self._covered = covered.offset
            super()._sync_with_backend()
            self._replay_result.loading = False
        if self._snapshot_due():
            self._save(self._backend.position, self._replay_result.contents())

    def make_backend(self) -> JournalBackend:
        return JournalBackend(self)

    def get_n_trials(self, study_id: int, state: tuple[TrialState, ...] | TrialState | None = None) -> int:
        states = (state,) if isinstance(state, TrialState) else tuple(TrialState) if state is None else state
        tally = self.tally(study_id)
        return sum(tally.states[each] for each in states)

    def tally(self, study_id: int) -> Tally:
        """Trials by state, without going through them. Raises KeyError where there is no such study."""
        with self._thread_lock:
            self._sync_with_backend()
            self._replay_result.get_study(study_id)
            return self._replay_result.tally(study_id)

    def overview(self, study_id: int) -> Overview:
        """The study at one moment: a second reading of the journal would find some trials both running and ended."""
        with self._thread_lock:
            self._sync_with_backend()
            changes: Sequence[Mapping[str, Any]] = self._replay_result.get_study(study_id).system_attrs.get(CHANGES, ())
            unfinished = self._replay_result.get_all_trials(study_id, states=UNFINISHED)
            opened = [open_trial_of(trial) for trial in unfinished]
            return overview_of(self._replay_result.tally(study_id).states, opened, changes)

    def _sync_with_backend(self) -> None:
        super()._sync_with_backend()
        writing = self._writer is not None and self._writer.is_alive()
        if self._snapshot_due() and time.monotonic() >= self._next_attempt and not writing:
            arguments = self._backend.position, self._replay_result.contents()
            self._writer = threading.Thread(target=self._save, args=arguments, name="snapshot", daemon=True)
            self._writer.start()

    def _snapshot_due(self) -> bool:
        tail = self._backend.position.offset - self._covered
        return tail > max(LEAST_TAIL, TAIL_SHARE * self._covered)

    def _save(self, covered: Position, contents: SnapshotContents) -> None:
        """Write a snapshot; one that cannot be written costs time alone."""
        self._next_attempt = time.monotonic() + _PAUSE
        try:
            save_snapshot(self._backend.path, covered, contents)
        except (OSError, ValueError) as error:
            logger.debug("no snapshot of %s: %s", self._backend.path, error)
        self._covered = max(self._covered, covered_by(self._backend.path).offset)


class JournalBackend(Backend):
    """Counts trials without going through them, and appends the records of a batch at once."""

    storage: Journal

    def overview(self, study_id: int) -> Overview:
        return self.storage.overview(study_id)

    def batch(self) -> AbstractContextManager[None]:
        return self.storage._backend.batch()
