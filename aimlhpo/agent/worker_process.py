"""Whether the kernel has killed for want of memory: what the memory cgroup of this job has counted.
A worker process, seen from its agent.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from contextlib import suppress
from multiprocessing import Pipe
from pathlib import Path

from aimlhpo.agent.fork_server import ForkedProcess, ForkServer
from aimlhpo.objective.messages import Setup, Started
from aimlhpo.processes import package_environment
from aimlhpo.worker.devices import Slot

KILLED_FOR_MEMORY = "out of memory: killed by the kernel"
"""The cause that is stored with the trial of such a worker."""

_CGROUPS, _MINE = Path("/sys/fs/cgroup"), Path("/proc/self/cgroup")


def count_memory_kills(cgroups: Path = _CGROUPS, mine: Path = _MINE) -> int:
    """How many processes of this one's cgroup the kernel has killed for want of memory; 0 where it does not say.

    Version 2 counts in memory.events, version 1 in memory.oom_control.
    """
    with suppress(OSError):
        for line in mine.read_text().splitlines():
            _, controllers, path = line.split(":", 2)
            if "memory" in controllers.split(","):
                return _count(cgroups / "memory" / path.lstrip("/") / "memory.oom_control")
            if not controllers and (cgroups / "cgroup.controllers").exists():
                return _count(cgroups / path.lstrip("/") / "memory.events")
    return 0


def _count(file: Path) -> int:
    lines = (line.split() for line in file.read_text().splitlines())
    return next((int(words[1]) for words in lines if words[0] == "oom_kill"), 0)


_LAST_LINES = 15
_TAIL_BYTES = 8192


class UnreadableMessage(Exception):
    """A worker has sent an object that the agent cannot make: of a class of the objective's own, for example."""


class WorkerProcess:
    """Starts a worker for a slot, with its own log file and its own GPU, and talks to it.

    A worker that the `template` makes is unknown until it is heard for the first time.

    Attributes:
        gone: whether it was ended from here.
        refused: why the system has made no process, where it has not.
    """

    def __init__(self, slot: Slot, setup: Setup, log: Path, template: ForkServer | None = None) -> None:
        self.log = log
        self._slot, self._setup, self._template = slot, setup, template
        self._process: subprocess.Popen[bytes] | ForkedProcess | None = None
        self.gone = False
        self.refused: str | None = None
        self._oom_kills = count_memory_kills()
        self.connection, theirs = Pipe()
        log.parent.mkdir(parents=True, exist_ok=True)
        with theirs, open(log, "ab") as output:
            if template is None or not template.ask(theirs.fileno(), output.fileno(), slot.environment()):
                self._start(theirs.fileno(), output.fileno())

    def _start(self, connection: int, output: int) -> None:
        try:
            self._process = _start(self._slot, connection, output)
        except OSError as error:  # no memory, or too many processes
            self.refused = error.strerror
        else:
            self._set_up()

    @property
    def has_started(self) -> bool:
        """Whether there is, or was, a process."""
        return self._process is not None

    def has_ended(self) -> bool:
        """Whether there was a process, and is no more."""
        return self._process is not None and self._process.poll() is not None

    def receive(self) -> object:
        """The next message.

        Raises EOFError or OSError when the worker is dead, or will never be there, and UnreadableMessage.
        """
        try:
            message = self.connection.recv()
        except (EOFError, OSError):
            if self._template is not None and not self.has_started:
                self._template.retire()
            raise
        except Exception as error:
            raise UnreadableMessage(f"sent what cannot be read: {type(error).__name__}: {error}") from error
        if isinstance(message, Started) and self._template is not None:
            self._process = self._template.claim(message.pid)
            self._set_up()
        return message

    def _set_up(self) -> None:
        if self.gone:  # ended before it was known
            self.gone = False
            self.kill()
            return
        with suppress(OSError):  # dead already: the next message tells
            self.connection.send(self._setup)

    def answer(self, message: object) -> None:
        """Send what it asked for; it may have died or been replaced meanwhile. None is no answer."""
        if message is not None and not self.connection.closed:
            with suppress(OSError):
                self.connection.send(message)

    def begin_trial(self) -> int:
        """A trial is given to the worker next; where its lines begin in the log, in bytes."""
        self._oom_kills = count_memory_kills()
        return self._log_size()

    def _log_size(self) -> int:
        with suppress(OSError):  # somebody has removed the logs
            return self.log.stat().st_size
        return 0

    def terminate(self) -> None:
        self._signal(signal.SIGTERM)

    def kill(self) -> None:
        """End the worker and everything it started, for certain, and wait for its end."""
        self._signal(signal.SIGKILL)
        if self._process is not None:
            self._process.wait()
        self.gone = True

    def wait(self, timeout: float) -> None:
        """Wait for the worker's end, `timeout` seconds at most, then end it."""
        if self._process is not None:
            with suppress(subprocess.TimeoutExpired):
                self._process.wait(timeout)
        self.kill()

    def cause_of_death(self) -> str:
        """How the dead worker ended, in the words that are stored with its trial."""
        if self._process is None:
            return f"not started: {self.refused}" if self.refused else "not started"
        code = self._process.wait()
        if code == -signal.SIGKILL and count_memory_kills() > self._oom_kills:
            return KILLED_FOR_MEMORY
        return f"killed by signal {-code}" if code < 0 else f"exit code {code}"

    def last_lines(self, begin: int) -> str:
        """The end of the log, from byte `begin` on."""
        try:
            with open(self.log, "rb") as file:
                file.seek(max(begin, self._log_size() - _TAIL_BYTES))
                return "\n".join(file.read().decode(errors="replace").splitlines()[-_LAST_LINES:])
        except OSError as error:
            return f"(its log cannot be read: {error})"

    def _signal(self, number: signal.Signals) -> None:
        if self.gone or self._process is None:  # its process group's number may be somebody else's by now
            return
        with suppress(ProcessLookupError):
            os.killpg(self._process.pid, number)


def _start(slot: Slot, connection: int, log: int) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, "-P", "-m", "aimlhpo.worker", str(connection), str(os.getpid())],
        stdin=subprocess.DEVNULL,
        stdout=log,
        stderr=log,
        pass_fds=[connection],
        env={**package_environment(), **slot.environment()},
        start_new_session=True,
    )
