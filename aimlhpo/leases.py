"""Who is alive: each agent holds a lease, a file that it keeps touching and keeps locked for as long as it lives.

Two signs are read, and neither needs the nodes' clocks to agree:
- the file's age, measured against a file touched now in the same directory: both stamps come from one file system;
- on the agent's own host, the kernel's lock on the file, which is free the moment the agent is dead.
"""

from __future__ import annotations

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

from aimlhpo.locks import open_lock_file, try_lock

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
        self._lapsed = False
        self.term = 0
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._keep, name="lease", daemon=True)
        self._fd = -1

    def __enter__(self) -> Lease:
        self._fd = self._write()
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ended.set()
        self._thread.join()
        self.path.unlink(missing_ok=True)
        os.close(self._fd)

    def _write(self) -> int:
        """Make the file, lock it, and only then say who holds it: a lease with a name in it is a locked one."""
        fd = open_lock_file(self.path)
        try_lock(fd)
        os.write(fd, json.dumps(asdict(self.holder)).encode())
        return fd

    def valid(self) -> bool:
        """Whether nobody can have taken this agent for dead since the claims were last confirmed."""
        self._lapsed = self._lapsed or _now() - self._renewed > self._grace
        return not self._lapsed

    def restore(self) -> None:
        """Start afresh before the claims are confirmed; others may have removed the file meanwhile."""
        if not self.path.exists():
            stale, self._fd = self._fd, self._write()
            os.close(stale)
        self.term += 1
        self._renewed = _now()
        self._lapsed = False
        self.renew()

    def renew(self) -> None:
        self.valid()
        os.utime(self._fd)
        self._renewed = _now()

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


Word = Callable[[Holder], bool | None]
"""What the cluster says of an agent's job: runs (True), is gone (False), or nothing (None)."""


class Registry:
    """Judges the leases under one directory.

    `myself` is the agent that asks, None for a command; `word` asks the cluster, where there is one.
    """

    def __init__(
        self, directory: Path, grace_period: float, myself: Holder | None = None, word: Word = lambda holder: None
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
