"""Kernel file locks: freed by the kernel when their holder dies, however it dies."""

from __future__ import annotations

import errno
import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from aimlhpo.errors import StorageError

_UNSUPPORTED = {errno.ENOSYS, errno.ENOTSUP, errno.ENOLCK, errno.EINVAL}


def open_lock_file(path: Path) -> int:
    """Open (and make, readable by the user alone) the file to lock; the descriptor is not inherited by children."""
    return os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)


def lock(fd: int, path: Path) -> None:
    """Wait for the exclusive lock on `fd`. Raises StorageError where the file system has no such locks."""
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)
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
    """Hold the exclusive lock on the file `path`, in a fair turn.

    The kernel lets whoever frees a lock have it again before those that wait for it are awake. So all wait for the
    place of the next one to come, a lock of its own, and only who has that place waits for the lock itself.
    """
    with _opened(path) as fd:
        with _opened(path.with_name(f"{path.name}.next")) as place:
            lock(place, path)
            lock(fd, path)
        yield


@contextmanager
def _opened(path: Path) -> Iterator[int]:
    fd = open_lock_file(path)
    try:
        yield fd
    finally:
        os.close(fd)
