"""A journal file that survives the death of a writer, be it in the middle of a line or while it holds the lock.

Optuna's own lock files outlive their holder, so that everybody waits for 30 s after one was killed; and one line that
was written in part makes a journal unreadable after the next append. Here the kernel frees the lock of a process that
ends, and whoever takes it next first repairs the last line.

Only Optuna's public interface is used: the file serves its `JournalStorage` as well as our own (`journal`). Any number
of processes may append to one file, by aimlhpo or by plain Optuna; each reads it by itself, without a lock.
"""

from __future__ import annotations

import errno
import json
import os
import stat
import time
from collections.abc import Generator, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any, NamedTuple, cast

from optuna.storages.journal import JournalFileBackend

from aimlhpo.storage.locks import lock

OPTUNAS_GRACE_PERIOD = 30.0  # seconds after which plain Optuna takes a lock for one whose holder was killed
_FIRST_PAUSE, _LONGEST_PAUSE = 0.001, 0.05  # seconds between two attempts to take it
_NO_LINKS = {errno.EPERM, errno.ENOSYS, errno.ENOTSUP}
_CHUNK = 1 << 16  # bytes that are read at once when the end of the last whole line is looked for


class Position(NamedTuple):
    """A place in a journal: how many records lie before it, and how many bytes."""

    records: int
    offset: int


class JournalLock:
    """The lock that Optuna's backend holds while it appends; taking it repairs the file's last line.

    It consists of two. The kernel's lock on the journal keeps other processes of aimlhpo out. The link
    `<journal>.lock` keeps out those that use the journal by plain Optuna, whose own locks are such a link or a file.
    Like Optuna's, it leads to the journal: who waits for it sees by the journal's time that writers live. By its text
    it is known as ours, so that the next process of aimlhpo takes it over at once when its maker was killed.
    """

    def __init__(self, journal: Path) -> None:
        self._journal = journal
        self._link = journal.with_name(journal.name + ".lock")
        self._text = f"././{journal.name}"  # no path that is written by hand begins like this
        self._held = ExitStack()

    def acquire(self) -> bool:
        with ExitStack() as stack:
            fd = os.open(self._journal, os.O_RDWR | os.O_CLOEXEC)
            stack.callback(os.close, fd)
            lock(fd, self._journal)
            self._keep_plain_optuna_out(stack)
            repair(self._journal)
            self._held = stack.pop_all()
        return True

    def release(self) -> None:
        self._held.close()

    def _keep_plain_optuna_out(self, stack: ExitStack) -> None:
        """Make the link, or take over ours. One that another has made is waited for, as long as Optuna does it."""
        seen, since, pause = (0, 0), 0.0, _FIRST_PAUSE
        while True:
            try:
                os.symlink(self._text, self._link)
                break
            except FileExistsError:
                pass  # whose it is decides what to do, below
            except OSError as error:
                if error.errno in _NO_LINKS:
                    return  # nor can plain Optuna make one here
                raise
            try:
                found = os.lstat(self._link)
                if stat.S_ISLNK(found.st_mode) and os.readlink(self._link) == self._text:
                    break
                if stat.S_ISREG(found.st_mode) and not found.st_mode & 0o111:  # Optuna's own files may be executed
                    self._remove_earlier_lock_file(stack)
                    continue
            except FileNotFoundError:
                continue
            if (found.st_ino, found.st_mtime_ns) != seen:
                seen, since = (found.st_ino, found.st_mtime_ns), time.monotonic()
            elif time.monotonic() - since > OPTUNAS_GRACE_PERIOD:
                self._link.unlink(missing_ok=True)
            time.sleep(pause)
            pause = min(2 * pause, _LONGEST_PAUSE)
        stack.callback(self._remove_link)

    def _remove_link(self) -> None:
        with suppress(OSError):  # another of ours takes over what stays
            if os.readlink(self._link) == self._text:  # not where it was taken for that of a dead process
                self._link.unlink()

    def _remove_earlier_lock_file(self, stack: ExitStack) -> None:
        """Remove the file that earlier versions of aimlhpo lock, and leave for ever, once none of them holds it."""
        fd = os.open(self._link, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC)
        stack.callback(os.close, fd)
        lock(fd, self._link)
        self._link.unlink(missing_ok=True)


class BatchingBackend(JournalFileBackend):
    """A journal file to which several records can be appended at once: one lock, one write, one sync to the disk."""

    _gathered: list[dict[str, Any]] | None = None

    def __init__(self, path: Path) -> None:
        """Open the journal file at `path` (absolute), making it if it is not there."""
        os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600))
        journal_lock = JournalLock(path)
        journal_lock.acquire()
        journal_lock.release()
        super().__init__(str(path), lock_obj=cast("Any", journal_lock))  # any object with acquire and release will do
        self.path = path
        self.position = Position(0, 0)
        """How far it was read; may be set where what lies before is known."""

    def read_logs(self, log_number_from: int) -> Generator[dict[str, Any], None, None]:
        """The whole records from that number on. Raises ValueError for a line that is none and not the last."""
        records, offset = self.position if self.position.records == log_number_from else (0, 0)
        with open(self.path, "rb") as file:
            end = os.fstat(file.fileno()).st_size  # a line after this may still be being written
            file.seek(offset)
            broken: ValueError | None = None
            for line in file:
                offset += len(line)
                if offset > end:
                    break
                if broken is not None:
                    raise broken
                try:
                    if not line.endswith(b"\n"):
                        raise ValueError("the journal's last line is not whole")
                    record = dict(json.loads(line))
                except ValueError as error:
                    broken = error
                    continue
                records += 1
                self.position = Position(records, offset)
                if records > log_number_from:
                    yield record

    def append_logs(self, logs: list[dict[str, Any]]) -> None:
        if self._gathered is None:
            super().append_logs(logs)
        else:
            self._gathered.extend(logs)

    @contextmanager
    def batch(self) -> Iterator[None]:
        """Hold back what is appended inside, and append it at the end; nothing of it after an error inside.

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


def repair(path: Path) -> None:
    """End the file with a whole line: a complete last record gets its newline, a torn one is cut off.

    The caller holds the journal's lock.
    """
    with open(path, "r+b", buffering=0) as file:
        size = file.seek(0, os.SEEK_END)
        if size == 0 or os.pread(file.fileno(), 1, size - 1) == b"\n":
            return
        start, line = size, b""  # of what comes after the last newline
        while start > 0 and b"\n" not in line:
            length = min(_CHUNK, start)
            start -= length
            line = os.pread(file.fileno(), length, start) + line
        whole_lines, newline, line = line.rpartition(b"\n")
        start += len(whole_lines) + len(newline)
        try:
            complete = isinstance(json.loads(line), dict)
        except ValueError:
            complete = False
        if complete:
            file.seek(size)
            file.write(b"\n")
        else:
            file.truncate(start)
        os.fsync(file.fileno())
