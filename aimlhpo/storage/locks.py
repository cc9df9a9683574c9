"""Kernel file locks: freed by the kernel when their holder dies, however it dies.
Which file systems are shared between machines: what a path lies on, by the kernel's mount table.
"""

from __future__ import annotations

import errno
import fcntl
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
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


class FairLock:
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
def _line_before(path: Path) -> FairLock:
    return FairLock(path.with_name(f"{path.name}.next"))


@contextmanager
def _opened(path: Path) -> Iterator[int]:
    fd = open_lock_file(path)
    try:
        yield fd
    finally:
        os.close(fd)


MOUNTS = Path("/proc/self/mountinfo")
NETWORK = frozenset(
    {
        "9p", "afs", "beegfs", "ceph", "cifs", "fhgfs", "fuse.beegfs", "fuse.ceph", "fuse.glusterfs", "fuse.juicefs",
        "fuse.sshfs", "gfs2", "glusterfs", "gpfs", "lustre", "nfs", "nfs4", "ocfs2", "orangefs", "panfs", "pvfs2",
        "smb3", "wekafs",
    }
)  # fmt: skip
_OCTAL = re.compile(r"\\([0-7]{3})")


_LOCKS_OF_THE_NODE = {
    "nfs": {"nolock", "local_lock=all", "local_lock=flock"},
    "nfs4": {"nolock", "local_lock=all", "local_lock=flock"},
    "lustre": {"localflock", "noflock"},
    "cifs": {"nobrl", "nolock"},
    "smb3": {"nobrl", "nolock"},
}
_WITHOUT_SHARED_LOCKS = frozenset({"9p", "afs", "fuse.sshfs", "pvfs2"})


@dataclass(frozen=True)
class Mount:
    """A mounted file system: where, of what type, with all its options."""

    point: Path
    kind: str
    options: frozenset[str]


def mount_of(path: Path, mounts: str | None = None) -> Mount | None:
    """The mount that `path` lies, or would lie, on; None where the kernel does not say."""
    try:
        table = MOUNTS.read_text(errors="surrogateescape") if mounts is None else mounts
    except OSError:
        return None
    real = path.resolve()
    found = [
        mount for mount in map(_entry, table.splitlines()) if mount is not None and real.is_relative_to(mount.point)
    ]
    # Of two mounts on one place the later hides the earlier.
    return max(reversed(found), key=lambda mount: len(mount.point.parts), default=None)


def type_of(path: Path, mounts: str | None = None) -> str | None:
    """The type of the file system that `path` lies, or would lie, on; None where the kernel does not say."""
    mount = mount_of(path, mounts)
    return mount.kind if mount is not None else None


def network(path: Path, mounts: str | None = None) -> str | None:
    """The type of the network file system that `path` lies on, or None where it is a local one."""
    kind = type_of(path, mounts)
    return kind if kind in NETWORK else None


def lock_trouble(path: Path, mounts: str | None = None) -> str | None:
    """Why a lock that one node takes on a file there keeps out no other node; None where nothing says so."""
    mount = mount_of(path, mounts)
    if mount is None:
        return None
    if mount.kind in _WITHOUT_SHARED_LOCKS:
        return f"{mount.point} is of a kind ({mount.kind}) that does not pass file locks on to other nodes"
    options = sorted(mount.options & _LOCKS_OF_THE_NODE.get(mount.kind, set()))
    if options:
        return f"{mount.point} ({mount.kind}) is mounted with {options[0]}: file locks stay on their own node"
    return None


def _entry(line: str) -> Mount | None:
    """A line of the table: `36 35 98:0 /root /point options ... - type source options`."""
    fields, _, rest = (part.split(" ") for part in line.partition(" - "))
    if len(fields) < 6 or len(rest) < 1:
        return None
    point = Path(_OCTAL.sub(lambda code: chr(int(code[1], 8)), fields[4]))
    return Mount(point, rest[0], frozenset(",".join([fields[5], *rest[2:]]).split(",")))
