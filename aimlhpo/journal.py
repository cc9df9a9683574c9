"""Optuna's journal file under a kernel lock, and its repair after a writer died in the middle of a line.

Optuna's own lock files outlive their holder, so everybody waits for 30 s when one is killed; and one half-written
line makes a journal unreadable after the next append. Here the kernel frees the lock, and whoever takes it next
first mends the last line.
"""

from __future__ import annotations

import json
import os
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from optuna.storages.journal import JournalFileBackend
from optuna.storages.journal._file import BaseJournalFileLock

from aimlhpo.locks import lock, open_lock_file

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
