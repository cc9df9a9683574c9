"""Who is alive: each agent holds a lease, a file that it keeps touching and keeps locked for as long as it lives.

Others read two signs, and neither needs the nodes' clocks to agree:

- the file's age, measured against a file touched now in the same directory: both stamps come from one file system;
- on the agent's own host, the kernel's lock on the file, which is free the moment the agent is dead.

`Lease` is an agent's own, `Registry` judges those of others. An `Election` picks the one of all agents that does what
only one should do. `verify_shared_locks` finds out, by the leases of others, whether file locks hold between nodes; the
mount table may not say.
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

from aimlhpo.errors import StorageError
from aimlhpo.storage.locks import open_lock_file, try_lock

_RENEWALS_PER_GRACE = 6
_SUSPICIOUS = 0.5  # of the grace period: from then on the cluster is asked
_STRETCH = 5  # grace periods that an agent has whose job runs, as the cluster says
_SILENT = 1 / 3  # of the grace period: a living agent has renewed its lease by then
_ENDING = ".ending"  # the suffix of the file that asks an agent to end after its trials
_ASKED_INTERVAL = 2.0  # seconds between two looks for that file
_POLL_INTERVAL = 0.2  # seconds between two looks at a lease that should be locked


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
    """This agent's lease, which a thread of its own ("lease") renews, so that nothing the agent waits for delays it.

    A lease that has lapsed, or whose file others have removed, is not renewed any more: others may have taken this
    agent for dead. The agent restores it, asks the ledger which claims it still holds, and says so with `confirmed`.

    Runs in: three threads. The lease's thread calls `renew`; the storage thread calls `restore` and `confirmed`, and is
    the only one that writes `term`; the main thread reads `valid` and `term`. What both of the former write is changed
    under a lock, which is never held while the file system is waited for.

    Attributes:
        term: grows each time that the lease was restored.
        asked_to_end: whether the agent is to end after the trials that it runs (`Registry.ask_to_end`).
    """

    def __init__(self, directory: Path, holder: Holder, grace_period: float) -> None:
        self.holder = holder
        self.path = _path(directory, holder.agent)
        self.term = 0
        self.asked_to_end = False
        self._grace = grace_period
        self._changing = threading.Lock()
        self._renewed = _now()
        self._removed, self._confirmed = False, True
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._keep, name="lease", daemon=True)
        self._fd = -1

    def __enter__(self) -> Lease:
        self._fd = open_lock_file(self.path)
        self._sign()
        self._thread.start()
        return self

    def __exit__(self, kind: object, error: object, trace: object) -> None:
        self._ended.set()
        self._thread.join()
        self.path.unlink(missing_ok=True)
        self.path.with_suffix(_ENDING).unlink(missing_ok=True)
        os.close(self._fd)

    def valid(self) -> bool:
        """Whether nobody can have taken this agent for dead since the claims were last confirmed."""
        return self._confirmed and not self._removed and _now() - self._renewed <= self._grace

    def renew(self) -> None:
        """Touch the file, which counts from before the call: that may hang until others have judged."""
        begun = _now()
        is_there = self._touch()
        with self._changing:
            if not is_there:
                self._removed = True
            elif _now() - self._renewed <= self._grace:
                self._renewed = max(begun, self._renewed)

    def restore(self) -> None:
        """Start afresh, in a new file where others have removed it; valid once the claims are `confirmed`."""
        self._confirmed = False
        begun = _now()
        if not self._touch():
            # Under the same descriptor, which the lease's thread may be using.
            fd = open_lock_file(self.path)
            os.dup2(fd, self._fd, inheritable=False)
            os.close(fd)
            self._sign()
        self.term += 1
        with self._changing:
            self._renewed, self._removed = begun, False

    def confirmed(self) -> None:
        """The claims have been confirmed since `restore`.

        Whoever was about to remove the file has done so by then, as both are done under the ledger's lock.
        """
        self.renew()
        self._confirmed = True

    def _sign(self) -> None:
        """Lock the file, and only then say who holds it: a lease with a name in it is a locked one."""
        try_lock(self._fd)
        os.write(self._fd, json.dumps(asdict(self.holder)).encode())

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

    def _keep(self) -> None:
        interval = self._grace / _RENEWALS_PER_GRACE
        due = time.monotonic() + interval
        while not self._ended.wait(min(interval, _ASKED_INTERVAL)):
            try:
                self.asked_to_end = self.asked_to_end or self.path.with_suffix(_ENDING).exists()
                if time.monotonic() >= due:
                    due = time.monotonic() + interval
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
"""What the cluster says of an agent's job: it runs (True), it is gone (False), or nothing (None)."""


class Registry:
    """Judges the leases under one directory.

    Args:
        grace_period: seconds after which an agent that is silent counts as dead.
        myself: the agent that asks; None for a command.
        query_job_state: asks the cluster, where there is one: it makes the wait for a silent agent shorter or longer.
    """

    def __init__(
        self,
        directory: Path,
        grace_period: float,
        myself: Holder | None = None,
        query_job_state: JobStateQuery = lambda holder: None,
    ) -> None:
        self._directory = directory
        self._grace = grace_period
        self._myself = myself
        self._query_job_state = query_job_state

    def is_dead(self, agent: str) -> bool:
        """Whether the agent is gone for good: no lease, its process ended, or silent beyond the grace period."""
        path = _path(self._directory, agent)
        try:
            with tempfile.NamedTemporaryFile(dir=self._directory, prefix=".now-") as file:
                age = os.fstat(file.fileno()).st_mtime - path.stat().st_mtime
        except FileNotFoundError:
            return True
        holder = _read(path)
        if holder is None:
            return age > self._grace
        mine = self._myself
        if mine is not None and mine.job is not None and mine.job == holder.job and mine.restarts > holder.restarts:
            return True  # it ran in this agent's own job, before the job was requeued
        if holder.boot == boot_id() and (_unlocked_since(path) is not None or not path.exists()):
            return True  # its process has ended
        if age < _SUSPICIOUS * self._grace:
            return False
        runs = self._query_job_state(holder)
        return runs is False or age > self._grace * (_STRETCH if runs else 1)

    def living(self) -> list[Holder]:
        return [holder for holder in holders(self._directory) if not self.is_dead(holder.agent)]

    def ask_to_end(self, agent: str) -> None:
        """Have a living agent end after the trials that it runs. Raises OSError."""
        path = _path(self._directory, agent)
        path.with_suffix(_ENDING).touch(mode=0o600)
        if not path.exists():  # it has ended meanwhile
            path.with_suffix(_ENDING).unlink(missing_ok=True)

    def is_asked_to_end(self, agent: str) -> bool:
        """Whether the agent was asked to end after the trials that it runs."""
        return _path(self._directory, agent).with_suffix(_ENDING).exists()

    def sweep(self) -> None:
        """Remove the lease files of the dead; the caller has released their trials."""
        for path in self._directory.glob("*.json"):
            if self.is_dead(path.stem):
                path.unlink(missing_ok=True)
                path.with_suffix(_ENDING).unlink(missing_ok=True)


class Election:
    """Elects one of all agents by a file lock; the kernel frees it with the end of the agent that holds it."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._fd = -1
        self._won = False

    def __enter__(self) -> Election:
        self._fd = open_lock_file(self._path)
        return self

    def __exit__(self, kind: object, error: object, trace: object) -> None:
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


def verify_shared_locks(directory: Path, myself: Holder, grace_period: float) -> None:
    """Return when no living agent of another host holds a lease whose lock this one could take.

    A living agent keeps its lease locked. Where another node can take that lock, locks do not work between the two, and
    neither do the ledger and a journal file.

    Waits (a third of `grace_period` at most) only for an agent that has just died. Raises StorageError in the agent
    that came later of two between which locks do not work: the earlier one goes on alone.
    """
    deadline = time.monotonic() + _SILENT * grace_period
    earlier = [other for other in holders(directory) if (other.started, other.agent) < (myself.started, myself.agent)]
    others = [holder for holder in earlier if holder.boot != boot_id()]
    paths = {holder: _path(directory, holder.agent) for holder in others}
    suspects = {holder: age for holder, path in paths.items() if (age := _unlocked_since(path)) is not None}
    while suspects:
        last = time.monotonic() >= deadline  # looks once more after it: this process may have been stopped meanwhile
        for holder, before in list(suspects.items()):
            renewed = _unlocked_since(paths[holder])
            if renewed is None:
                del suspects[holder]
            elif renewed > before:
                raise StorageError(
                    f"file locks do not work between this node and {holder.host}, where an agent of the study runs "
                    f"already:\n    its lock under {directory} could be taken here. This agent stops, that one goes on "
                    "alone.\n    Put save_path (and a journal) where locks work between nodes (NFS without nolock and "
                    "local_lock, Lustre\n    mounted with flock, GPFS), or run the study in one job with several GPUs."
                )
        if last:
            return
        time.sleep(_POLL_INTERVAL)


def _unlocked_since(path: Path) -> int | None:
    """When a lease was last renewed (ns), if its lock can be taken; None where it is locked or gone."""
    try:
        fd = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
    try:
        return os.fstat(fd).st_mtime_ns if try_lock(fd) else None
    finally:
        os.close(fd)
