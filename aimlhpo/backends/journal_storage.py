"""Optuna's journal storage, opened from a snapshot and what was appended since."""

from __future__ import annotations

import logging
import threading
import time
import uuid
from typing import Any

from optuna.storages import JournalStorage
from optuna.trial import TrialState

from aimlhpo.backends import snapshot
from aimlhpo.backends.collector import paused
from aimlhpo.backends.replay import Replay, Tally
from aimlhpo.journal import BatchingBackend

logger = logging.getLogger(__name__)

LEAST_TAIL, TAIL_SHARE = 4 << 20, 0.1  # bytes beyond the snapshot, and share of it, that make a new one worth while
_PAUSE = 60.0  # seconds after a snapshot that could not be written


class Journal(JournalStorage):
    """Reads and writes the same journal as Optuna's class.

    Whoever opens a journal with a long tail writes a snapshot at once; whoever goes on reading one, from time to time
    and in a thread of its own.
    """

    _backend: BatchingBackend
    _replay_result: Replay

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
        self._next_try = 0.0
        with self._thread_lock, paused():
            self._replay_result = self._from_snapshot()
            super()._sync_with_backend()
            self._replay_result.loading = False
        if self._is_due():
            self._save(*self._copy())

    def _from_snapshot(self) -> Replay:
        replay = Replay(self._worker_id_prefix)
        found = snapshot.load(self._backend.path)
        self._covered = 0
        if found is not None:
            covered, contents = found
            contents.put_into(replay)
            replay.log_number_read = covered.records
            self._backend.skip_to(covered.records, covered.offset)
            self._covered = covered.offset
        return replay

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

    def _sync_with_backend(self) -> None:
        super()._sync_with_backend()
        if (
            self._is_due()
            and time.monotonic() >= self._next_try
            and (self._writer is None or not self._writer.is_alive())
        ):
            self._writer = threading.Thread(target=self._save, args=self._copy(), name="snapshot", daemon=True)
            self._writer.start()

    def _is_writing(self) -> bool:
        return self._writer is not None and self._writer.is_alive()

    def _is_due(self) -> bool:
        tail = self._backend.position[1] - self._covered
        return tail > max(LEAST_TAIL, TAIL_SHARE * self._covered)

    def _copy(self) -> tuple[snapshot.Covered, snapshot.Contents]:
        return snapshot.Covered(*self._backend.position), snapshot.Contents.of(self._replay_result)

    def _save(self, covered: snapshot.Covered, contents: snapshot.Contents) -> None:
        """Write a snapshot; one that cannot be written costs time alone."""
        self._next_try = time.monotonic() + _PAUSE
        try:
            snapshot.save(self._backend.path, covered, contents)
        except (OSError, ValueError) as error:
            logger.debug("no snapshot of %s: %s", self._backend.path, error)
        self._covered = max(self._covered, snapshot.covered_by(self._backend.path).offset)
