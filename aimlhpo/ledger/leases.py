"""Who is alive: each agent holds a lease, a file that it keeps touching and keeps locked for as long as it lives.

Two signs are read, and neither needs the nodes' clocks to agree:
- the file's age, measured against a file touched now in the same directory: both stamps come from one file system;
- on the agent's own host, the kernel's lock on the file, which is free the moment the agent is dead.
Which one of all agents does what only one should do: wait for the last trials, tell tracking tools of them.
Whether file locks hold between the nodes of a study: the mount table may not say, the other agents' leases do.

A living agent keeps its lease locked. Where another node can take that lock, locks do not work between the two, and
neither do the ledger and a journal file.
"""

from __future__ import annotations

import errno
import json
import os
import socket
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from types import TracebackType

from aimlhpo.errors import StorageError
from aimlhpo.storage.locks import open_lock_file, try_lock

_RENEWALS_PER_GRACE = 6
_SUSPICIOUS = 0.5  # of the grace period: from then on the cluster is asked
_STRETCH = 5  # grace periods that an agent has whose job runs by the cluster's word


def boot_id() -> str:
    """Names this host since its last start, so that a restarted or cloned host is another one."""
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()


@dataclass(frozen=True)
class Holder:
    """Who holds a lease."""

    agent: str
    host: str = field(default_factory=socket.gethostname)
    boot: str = field(default_factory=boot_id)
    pid: int = field(default_factory=os.getpid)
    started: float = field(default_factory=time.time)
    job: str | None = None
    restarts: int = 0
    python: str = sys.executable


class Lease:
    """This agent's lease: renewed by a thread, so that nothing that the agent waits for can let it lapse.

    Attributes:
        term: grows each time that the lease has lapsed and was restored.
    """

    def __init__(self, directory: Path, holder: Holder, grace_period: float) -> None:
        self.holder = holder
        self.path = _path(directory, holder.agent)
        self._grace = grace_period
        self._renewed = _now()
        self._lapsed, self._confirmed = False, True
        self.term = 0
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._keep, name="lease", daemon=True)
        self._fd = -1

    def __enter__(self) -> Lease:
        self._fd = open_lock_file(self.path)
        self._sign()
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ended.set()
        self._thread.join()
        self.path.unlink(missing_ok=True)
        os.close(self._fd)

    def _sign(self) -> None:
        """Lock the file, and only then say who holds it: a lease with a name in it is a locked one."""
        try_lock(self._fd)
        os.write(self._fd, json.dumps(asdict(self.holder)).encode())

    def valid(self) -> bool:
        """Whether nobody can have taken this agent for dead since the claims were last confirmed."""
        return self._confirmed and not self._has_lapsed()

    def _has_lapsed(self) -> bool:
        """Since it was last restored; once noticed, that stays: several threads ask."""
        if _now() - self._renewed > self._grace:
            self._lapsed = True
        return self._lapsed

    def restore(self) -> None:
        """Start afresh, in a new file where others have removed it; valid once the claims are `confirmed`."""
        self._confirmed = False
        begun = _now()
        if not self._touch():
            self._make_anew()
        self.term += 1
        self._renewed, self._lapsed = begun, False

    def confirmed(self) -> None:
        """The claims have been confirmed since `restore`.

        Who was about to remove the file has done so by then, as both are done under one lock.
        """
        self.renew()
        self._confirmed = True

    def renew(self) -> None:
        """Touch the file, which counts from before the call: that may hang until others have judged."""
        begun = _now()
        if not self._touch():
            self._lapsed = True
        if not self._has_lapsed():
            self._renewed = max(begun, self._renewed)

    def _touch(self) -> bool:
        """Whether the file is still there; a removed one can be touched, too, where it is open."""
        try:
            os.utime(self._fd)
            os.stat(self.path)
        except OSError as error:
            if error.errno not in (errno.ENOENT, errno.ESTALE):
                raise
            return False
        return True

    def _make_anew(self) -> None:
        """Under the same descriptor, which the thread may be using."""
        fd = open_lock_file(self.path)
        os.dup2(fd, self._fd, inheritable=False)
        os.close(fd)
        self._sign()

    def _keep(self) -> None:
        while not self._ended.wait(self._grace / _RENEWALS_PER_GRACE):
            try:
                self.renew()
            except OSError:
                # A file system that is away for a while is no reason to stop: the next round tries again.
                continue


def _now() -> float:
    """Seconds that go on counting while the machine is suspended."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


def _path(directory: Path, agent: str) -> Path:
    return directory / f"{agent}.json"


def holders(directory: Path) -> list[Holder]:
    """Everybody who has a lease file, dead or alive."""
    found = (_read(path) for path in sorted(directory.glob("*.json")))
    return [holder for holder in found if holder is not None]


def _read(path: Path) -> Holder | None:
    try:
        return Holder(**json.loads(path.read_text()))
    except (OSError, ValueError, TypeError):
        return None


JobStateQuery = Callable[[Holder], bool | None]
"""What the cluster says of an agent's job: runs (True), is gone (False), or nothing (None)."""


class Registry:
    """Judges the leases under one directory.

    `myself` is the agent that asks, None for a command; `word` asks the cluster, where there is one.
    """

    def __init__(
        self,
        directory: Path,
        grace_period: float,
        myself: Holder | None = None,
        word: JobStateQuery = lambda holder: None,
    ) -> None:
        self._directory = directory
        self._grace = grace_period
        self._myself = myself
        self._word = word

    def is_dead(self, agent: str) -> bool:
        """Whether the agent is gone for good: no lease, its process ended, or silent beyond the grace period."""
        path = _path(self._directory, agent)
        try:
            age = self._file_system_time() - path.stat().st_mtime
        except FileNotFoundError:
            return True
        holder = _read(path)
        if holder is None:
            return age > self._grace
        return self._is_superseded(holder) or _ended_on_this_host(holder, path) or self._is_silent(holder, age)

    def _is_superseded(self, holder: Holder) -> bool:
        """Whether the holder ran in this agent's own job, before the job was requeued."""
        mine = self._myself
        return mine is not None and mine.job is not None and mine.job == holder.job and mine.restarts > holder.restarts

    def _is_silent(self, holder: Holder, age: float) -> bool:
        """Whether the lease has run out; the cluster's word ends the wait sooner, or makes it longer."""
        if age < _SUSPICIOUS * self._grace:
            return False
        word = self._word(holder)
        if word is False:
            return True
        return age > self._grace * (_STRETCH if word else 1)

    def living(self) -> list[Holder]:
        return [holder for holder in holders(self._directory) if not self.is_dead(holder.agent)]

    def sweep(self) -> None:
        """Remove the lease files of the dead; the caller has released their trials."""
        for path in self._directory.glob("*.json"):
            if self.is_dead(path.stem):
                path.unlink(missing_ok=True)

    def _file_system_time(self) -> float:
        with tempfile.NamedTemporaryFile(dir=self._directory, prefix=".now-") as file:
            return os.fstat(file.fileno()).st_mtime


def _ended_on_this_host(holder: Holder, path: Path) -> bool:
    if holder.boot != boot_id():
        return False
    try:
        fd = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    except FileNotFoundError:
        return True
    try:
        return try_lock(fd)
    finally:
        os.close(fd)


class Election:
    """An election by file lock: whoever holds it is elected; the kernel frees it with its holder's end."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._fd = -1
        self._won = False

    def __enter__(self) -> Election:
        self._fd = open_lock_file(self._path)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        os.close(self._fd)

    def won(self) -> bool:
        """Whether this agent is the one."""
        self._won = self._won or try_lock(self._fd)
        return self._won

    def resign(self) -> None:
        """Let the others know that this agent will soon be gone: `is_vacant_soon` says so to them."""
        os.ftruncate(self._fd, 1)

    def begin(self) -> None:
        """The opposite of `resign`, for whoever has won."""
        os.ftruncate(self._fd, 0)

    def is_vacant_soon(self) -> bool:
        """Whether the one that is elected has resigned."""
        return os.fstat(self._fd).st_size > 0


_SILENT = 1 / 3  # of the grace period: a living agent has renewed its lease by then
_LOOK = 0.2  # seconds


def verify_shared_locks(directory: Path, myself: Holder, grace_period: float) -> None:
    """Return when no living agent of another host has a lock that this one could take.

    Waits (a third of `grace_period` at most) only for an agent that has just died. Raises StorageError in the agent
    that came later of two between which locks do not work: the earlier one goes on alone.
    """
    deadline = time.monotonic() + _SILENT * grace_period
    others = [holder for holder in holders(directory) if holder.boot != boot_id() and _is_earlier(holder, myself)]
    suspects = {holder: age for holder in others if (age := _unlocked_since(directory, holder)) is not None}
    while suspects:
        last = time.monotonic() >= deadline  # one look after it: this process may have been stopped meanwhile
        for holder, before in list(suspects.items()):
            renewed = _unlocked_since(directory, holder)
            if renewed is None:
                del suspects[holder]
            elif renewed > before:
                raise StorageError(_told(directory, holder))
        if last:
            return
        time.sleep(_LOOK)


def _is_earlier(other: Holder, myself: Holder) -> bool:
    return (other.started, other.agent) < (myself.started, myself.agent)


def _unlocked_since(directory: Path, holder: Holder) -> int | None:
    """When the lease was last renewed (ns), if its lock can be taken; None where it is locked or gone."""
    try:
        fd = os.open(directory / f"{holder.agent}.json", os.O_RDWR | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
    try:
        return os.fstat(fd).st_mtime_ns if try_lock(fd) else None
    finally:
        os.close(fd)


def _told(directory: Path, holder: Holder) -> str:
    return (
        f"file locks do not work between this node and {holder.host}, where an agent of the study runs already:\n"
        f"    its lock under {directory} could be taken here. This agent stops, that one goes on alone.\n"
        "    Put save_path (and a journal) where locks work between nodes (NFS without nolock and local_lock, Lustre\n"
        "    mounted with flock, GPFS), or run the study in one job with several GPUs."
    )
