"""File locks between processes and nodes, and which file systems they work on.

The kernel frees a lock when its holder ends, however it ends. `locked` is the lock that the whole package uses; `lock`
and `try_lock` work on a file that is open. `mount_of`, `network` and `lock_trouble` tell by the kernel's mount table
what a path lies on, and whether locks there reach other nodes.
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

_LONGEST_WAIT = 3.0  # seconds to wait for the place before the lock before going past whoever has it
_UNSUPPORTED = {errno.ENOSYS, errno.ENOTSUP, errno.ENOLCK, errno.EINVAL}


def open_lock_file(path: Path) -> int:
    """Open (and make, readable by the user alone) the file to lock; the descriptor is not inherited by children."""
    return os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)


def lock(fd: int, path: Path) -> None:
    """Wait for the exclusive lock on `fd`. Raises StorageError where the file system has no such locks."""
    with _storage_errors(path):
        fcntl.flock(fd, fcntl.LOCK_EX)


def try_lock(fd: int) -> bool:
    """Take the exclusive lock on `fd` if nobody else holds it."""
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold the exclusive lock on the file `path`; those that wait for it have it in fair order."""
    with _opened(path) as fd:
        with _fair_lock(path).next_in_order():
            lock(fd, path)
        yield


class FairLock:
    """A second lock before a lock: whoever holds it is the next one to have the lock itself.

    The kernel lets whoever frees a lock take it again before those that wait for it are awake. With the second lock,
    which is freed as soon as the first is held, that one has to wait behind them. The process that holds the second
    lock may have been stopped: whoever waits too long for it goes past.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._stuck: Thread | None = None

    @contextmanager
    def next_in_order(self) -> Iterator[None]:
        """Inside, wait for the lock itself."""
        if self._stuck is not None and self._stuck.is_alive():
            yield
            return
        with _opened(self._path) as fd:
            with _storage_errors(self._path):
                free = try_lock(fd)
            if not free:
                # In a thread, as flock knows no timeout; with a descriptor of its own, as it may get the lock too late.
                waiting = Thread(target=_take_and_close, args=(os.dup(fd),), name="fair-lock", daemon=True)
                waiting.start()
                waiting.join(_LONGEST_WAIT)
                self._stuck = waiting if waiting.is_alive() else None
            yield


def _take_and_close(fd: int) -> None:
    """Wait for the lock; it is held for as long as another descriptor of the same opening is there."""
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)
    finally:
        os.close(fd)


@cache
def _fair_lock(path: Path) -> FairLock:
    return FairLock(path.with_name(f"{path.name}.next"))


@contextmanager
def _opened(path: Path) -> Iterator[int]:
    fd = open_lock_file(path)
    try:
        yield fd
    finally:
        os.close(fd)


@contextmanager
def _storage_errors(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno not in _UNSUPPORTED:
            raise
        raise StorageError(
            f"{path}: the file system it lies on has no file locks ({error.strerror}).\n"
            "    Put save_path on one that has them (NFSv4, Lustre mounted with -o flock, GPFS, a local disk)."
        ) from error


# --- file systems ---

MOUNTS = Path("/proc/self/mountinfo")
NETWORK = frozenset(
    {
        "9p", "afs", "beegfs", "ceph", "cifs", "fhgfs", "fuse.beegfs", "fuse.ceph", "fuse.glusterfs", "fuse.juicefs",
        "fuse.sshfs", "gfs2", "glusterfs", "gpfs", "lustre", "nfs", "nfs4", "ocfs2", "orangefs", "panfs", "pvfs2",
        "smb3", "wekafs",
    }
)  # fmt: skip
_NODE_LOCAL_LOCKS = {  # options of a mount with which locks stay on their own node, by type
    "nfs": {"nolock", "local_lock=all", "local_lock=flock"},
    "nfs4": {"nolock", "local_lock=all", "local_lock=flock"},
    "lustre": {"localflock", "noflock"},
    "cifs": {"nobrl", "nolock"},
    "smb3": {"nobrl", "nolock"},
}
_WITHOUT_SHARED_LOCKS = frozenset({"9p", "afs", "fuse.sshfs", "pvfs2"})
_OCTAL = re.compile(r"\\([0-7]{3})")


@dataclass(frozen=True)
class Mount:
    """A mounted file system: where, of what type, with all its options."""

    point: Path
    type: str
    options: frozenset[str]


def mount_of(path: Path, mounts: str | None = None) -> Mount | None:
    """The mount that `path` lies, or would lie, on; None where the kernel does not say.

    `mounts` is the mount table, with lines like `36 35 98:0 /root /point options ... - type source options`.
    """
    try:
        table = MOUNTS.read_text(errors="surrogateescape") if mounts is None else mounts
    except OSError:
        return None
    real, deepest = path.resolve(), None
    for line in table.splitlines():
        fields, _, rest = (part.split(" ") for part in line.partition(" - "))
        if len(fields) < 6 or len(rest) < 1:
            continue
        point = Path(_OCTAL.sub(lambda code: chr(int(code[1], 8)), fields[4]))
        # Of two mounts on one place the later hides the earlier.
        if real.is_relative_to(point) and (deepest is None or len(point.parts) >= len(deepest.point.parts)):
            deepest = Mount(point, rest[0], frozenset(",".join([fields[5], *rest[2:]]).split(",")))
    return deepest


def network(path: Path, mounts: str | None = None) -> str | None:
    """The type of the network file system that `path` lies on, or None where it is a local one."""
    mount = mount_of(path, mounts)
    return mount.type if mount is not None and mount.type in NETWORK else None


def lock_trouble(path: Path, mounts: str | None = None) -> str | None:
    """Why a lock that one node takes on a file there keeps out no other node; None where nothing says so."""
    mount = mount_of(path, mounts)
    if mount is None:
        return None
    if mount.type in _WITHOUT_SHARED_LOCKS:
        return f"{mount.point} is of a kind ({mount.type}) that does not pass file locks on to other nodes"
    options = sorted(mount.options & _NODE_LOCAL_LOCKS.get(mount.type, set()))
    if options:
        return f"{mount.point} ({mount.type}) is mounted with {options[0]}: file locks stay on their own node"
    return None
