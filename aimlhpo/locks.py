"""Kernel file locks: freed by the kernel when their holder dies, however it dies."""

from __future__ import annotations

import errno
import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from threading import Thread

from aimlhpo.errors import StorageError

_PATIENCE = 3.0  # seconds that a line may stand still
_UNSUPPORTED = {errno.ENOSYS, errno.ENOTSUP, errno.ENOLCK, errno.EINVAL}


def open_lock_file(path: Path) -> int:
    """Open (and make, readable by the user alone) the file to lock; the descriptor is not inherited by children."""
    return os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)


def lock(fd: int, path: Path) -> None:
    """Wait for the exclusive lock on `fd`. Raises StorageError where the file system has no such locks."""
    with _told_as_storage_error(path):
        fcntl.flock(fd, fcntl.LOCK_EX)


@contextmanager
def _told_as_storage_error(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno not in _UNSUPPORTED:
            raise
        raise StorageError(
            f"{path}: the file system it lies on has no file locks ({error.strerror}).\n"
            "    Put save_path on one that has them (NFSv4, Lustre mounted with -o flock, GPFS, a local disk)."
        ) from error


def try_lock(fd: int) -> bool:
    """Take the exclusive lock on `fd` if nobody else holds it."""
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold the exclusive lock on the file `path`, in a fair turn."""
    with _opened(path) as fd:
        with _line_before(path).at_its_head():
            lock(fd, path)
        yield


class Line:
    """Those that wait for a lock, in a line of its own: who is at its head waits for the lock itself.

    The kernel lets whoever frees a lock have it again before those that wait for it are awake; so that one has to stand
    in line again. Who waits in vain for the head to move goes past: it may be an agent that was stopped there.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._stuck: Thread | None = None

    @contextmanager
    def at_its_head(self) -> Iterator[None]:
        if self._stuck is not None and self._stuck.is_alive():
            yield
            return
        with _opened(self._path) as fd:
            with _told_as_storage_error(self._path):
                free = try_lock(fd)
            if not free:
                self._wait(fd)
            yield

    def _wait(self, fd: int) -> None:
        """In a thread, as this call knows no timeout; with a descriptor of its own, as it may come too late."""
        waiting = Thread(target=_take_and_close, args=(os.dup(fd),), name="line", daemon=True)
        waiting.start()
        waiting.join(_PATIENCE)
        self._stuck = waiting if waiting.is_alive() else None


def _take_and_close(fd: int) -> None:
    """Wait for the lock; it is held for as long as another descriptor of the same opening is there."""
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)
    finally:
        os.close(fd)


@cache
def _line_before(path: Path) -> Line:
    return Line(path.with_name(f"{path.name}.next"))


@contextmanager
def _opened(path: Path) -> Iterator[int]:
    fd = open_lock_file(path)
    try:
        yield fd
    finally:
        os.close(fd)
