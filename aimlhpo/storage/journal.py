"""Optuna's journal file under a kernel lock, and its repair after a writer died in the middle of a line.

Optuna's own lock files outlive their holder, so everybody waits for 30 s when one is killed; and one half-written
line makes a journal unreadable after the next append. Here the kernel frees the lock, and whoever takes it next
first mends the last line.
Optuna's journal storage, opened from a snapshot and what was appended since.
"""

from __future__ import annotations

import json
import logging
import os
import threading
import time
import uuid
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.storages.journal._file import BaseJournalFileLock
from optuna.trial import TrialState

from aimlhpo.storage.journal_snapshot import (
    CoveredPart,
    JournalReplay,
    SnapshotContents,
    Tally,
    covered_by,
    load_snapshot,
    save_snapshot,
)
from aimlhpo.storage.lazy_trials import collection_paused
from aimlhpo.storage.locks import lock, open_lock_file

_CHUNK = 1 << 16


class JournalLock(BaseJournalFileLock):
    """The lock that Optuna's backend holds while it appends; taking it repairs the file's last line."""

    def __init__(self, journal: Path) -> None:
        self._journal = journal
        self._path = journal.with_name(journal.name + ".lock")
        self._fd = -1

    def acquire(self) -> bool:
        self._fd = open_lock_file(self._path)
        try:
            lock(self._fd, self._path)
            repair(self._journal)
        except BaseException:
            self.release()
            raise
        return True

    def release(self) -> None:
        os.close(self._fd)
        self._fd = -1


class BatchingBackend(JournalFileBackend):
    """A journal file to which several records can be appended at once: one lock, one write, one sync to the disk."""

    _gathered: list[dict[str, Any]] | None = None
    _read: tuple[int, int] = (0, 0)

    @property
    def path(self) -> Path:
        return Path(self._file_path)

    @property
    def position(self) -> tuple[int, int]:
        """Records read so far, and the byte after the last of them."""
        return self._read

    def skip_to(self, records: int, offset: int) -> None:
        """Go on reading there: what lies before is known."""
        self._read = records, offset

    def read_logs(self, log_number_from: int) -> Generator[dict[str, Any], None, None]:
        """The whole records from that number on. Raises ValueError for a line that is none and not the last."""
        records, offset = self._read if self._read[0] == log_number_from else (0, 0)
        with open(self._file_path, "rb") as file:
            end = os.fstat(file.fileno()).st_size  # later lines are not looked at: their writer may be at it
            file.seek(offset)
            broken: ValueError | None = None
            for line in file:
                offset += len(line)
                if offset > end:
                    break
                if broken is not None:
                    raise broken
                try:
                    record = _whole(line)
                except ValueError as error:
                    broken = error
                    continue
                records += 1
                self._read = records, offset
                if records > log_number_from:
                    yield record

    def append_logs(self, logs: list[dict[str, Any]]) -> None:
        if self._gathered is None:
            super().append_logs(logs)
        else:
            self._gathered.extend(logs)

    @contextmanager
    def batch(self) -> Iterator[None]:
        """Hold back what is appended inside, and append it in the end; nothing of it after an error inside.

        A full disk may keep the first records alone. They stay: readers take no lock, and may have read them.
        """
        records: list[dict[str, Any]] = []
        self._gathered = records
        try:
            yield
        finally:
            self._gathered = None
        if records:
            super().append_logs(records)


def journal_backend(path: Path) -> BatchingBackend:
    """Open the journal file at `path` (absolute), making it if it is not there."""
    os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600))
    guard = JournalLock(path)
    guard.acquire()
    guard.release()
    return BatchingBackend(str(path), lock_obj=guard)


def _whole(line: bytes) -> dict[str, Any]:
    if not line.endswith(b"\n"):
        raise ValueError("the journal's last line is not whole")
    return dict(json.loads(line))


def repair(path: Path) -> None:
    """End the file with a whole line: a complete last record gets its newline, a torn one is cut off.

    The caller holds the journal's lock.
    """
    with open(path, "r+b", buffering=0) as file:
        size = file.seek(0, os.SEEK_END)
        if size == 0 or _read(file.fileno(), size - 1, 1) == b"\n":
            return
        start, tail = _last_line(file.fileno(), size)
        if _is_record(tail):
            file.seek(size)
            file.write(b"\n")
        else:
            file.truncate(start)
        os.fsync(file.fileno())


def _last_line(fd: int, size: int) -> tuple[int, bytes]:
    """Where the text after the last newline begins, and that text."""
    tail = b""
    position = size
    while position > 0:
        length = min(_CHUNK, position)
        position -= length
        chunk = _read(fd, position, length)
        newline = chunk.rfind(b"\n")
        if newline >= 0:
            return position + newline + 1, chunk[newline + 1 :] + tail
        tail = chunk + tail
    return 0, tail


def _read(fd: int, position: int, length: int) -> bytes:
    return os.pread(fd, length, position)


def _is_record(line: bytes) -> bool:
    try:
        return isinstance(json.loads(line), dict)
    except ValueError:
        return False


logger = logging.getLogger(__name__)

LEAST_TAIL, TAIL_SHARE = 4 << 20, 0.1  # bytes beyond the snapshot, and share of it, that make a new one worth while
_PAUSE = 60.0  # seconds after a snapshot that could not be written


class Journal(JournalStorage):
    """Reads and writes the same journal as Optuna's class.

    Whoever opens a journal with a long tail writes a snapshot at once; whoever goes on reading one, from time to time
    and in a thread of its own.
    """

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
        self._next_try = 0.0
        with self._thread_lock, collection_paused():
            self._replay_result = self._from_snapshot()
            super()._sync_with_backend()
            self._replay_result.loading = False
        if self._is_due():
            self._save(*self._copy())

    def _from_snapshot(self) -> JournalReplay:
        replay = JournalReplay(self._worker_id_prefix)
        found = load_snapshot(self._backend.path)
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

    def _copy(self) -> tuple[CoveredPart, SnapshotContents]:
        return CoveredPart(*self._backend.position), SnapshotContents.of(self._replay_result)

    def _save(self, covered: CoveredPart, contents: SnapshotContents) -> None:
        """Write a snapshot; one that cannot be written costs time alone."""
        self._next_try = time.monotonic() + _PAUSE
        try:
            save_snapshot(self._backend.path, covered, contents)
        except (OSError, ValueError) as error:
            logger.debug("no snapshot of %s: %s", self._backend.path, error)
        self._covered = max(self._covered, covered_by(self._backend.path).offset)
