"""A worker process as its agent sees it: started, talked to, ended; and how it died.

Everything here is called in the agent's main thread.
"""

from __future__ import annotations

import os
import pickle
import signal
import subprocess
import sys
from contextlib import suppress
from io import BytesIO
from multiprocessing import Pipe
from pathlib import Path
from typing import Any

from aimlhpo.agent.fork_server import ForkedProcess, ForkServer
from aimlhpo.objective.messages import Setup, Started, Stop
from aimlhpo.processes import module_command
from aimlhpo.results.worker_log import WorkerLog
from aimlhpo.worker.devices import Slot
from aimlhpo.worker.nodes import LAUNCHER, RemoteProcesses
from aimlhpo.worker.ranks import without_process_group

KILLED_FOR_MEMORY = "out of memory: killed by the kernel"
"""The cause that is stored with the trial of such a worker."""

_CGROUPS, _MINE = Path("/sys/fs/cgroup"), Path("/proc/self/cgroup")


class UnreadableMessage(Exception):
    """A worker has sent an object that the agent cannot make: of a class of the objective's own, for example."""


class _MessageReader(pickle.Unpickler):
    """Reads a message. What is of a module that the agent has not loaded is refused: it never imports user code."""

    def find_class(self, module: str, name: str) -> Any:
        if module not in sys.modules:
            raise pickle.UnpicklingError(f"an object of {module}.{name}")
        return super().find_class(module, name)


class WorkerProcess:
    """Starts a worker for a slot, with its own log file and its own GPU, and talks to it.

    It is forked of the fork server where that makes workers, and is then unknown until its first message; else it is
    started anew and imports the objective itself. On another node than the agent's it is a launcher that stands for it.

    Attributes:
        connection: the agent's end of the pipe.
        log: where the worker's standard output and error go.
        gone: whether it was ended from here.
        refused: why the system has made no process, where it has not.
    """

    def __init__(self, slot: Slot, setup: Setup, log: WorkerLog, fork_server: ForkServer | None = None) -> None:
        self.log = log
        self.gone = False
        self.refused: str | None = None
        self._setup, self._fork_server = setup, fork_server
        self._process: subprocess.Popen[bytes] | ForkedProcess | None = None
        self._memory_kills = count_memory_kills()
        self.connection, theirs = Pipe()
        log.path.parent.mkdir(parents=True, exist_ok=True)
        with theirs, open(log.path, "ab") as output:
            if (
                slot.agent_address is None
                and fork_server is not None
                and fork_server.ask(theirs.fileno(), output.fileno(), slot.environment())
            ):
                return
            role = 0 if slot.agent_address is None else LAUNCHER
            try:
                self._process = subprocess.Popen(
                    module_command("aimlhpo.worker", theirs.fileno(), os.getpid(), role),
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=output,
                    pass_fds=[theirs.fileno()],
                    env={**without_process_group(os.environ), **slot.environment()},
                    start_new_session=True,
                )
            except OSError as error:  # no memory, or too many processes
                self.refused = error.strerror
                return
            if slot.agent_address is not None and setup.nodes is not None:
                with suppress(OSError):  # dead already
                    self.connection.send(RemoteProcesses(setup.nodes, {0: theirs.fileno()}, slot.agent_address))
        self._set_up()

    @property
    def pid(self) -> int | None:
        """The process's id, which is its session's, too; None before it is known."""
        return self._process.pid if self._process is not None else None

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
            message = _MessageReader(BytesIO(self.connection.recv_bytes())).load()
        except (EOFError, OSError):
            if self._fork_server is not None and not self.has_started:
                self._fork_server.retire()
            raise
        except Exception as error:
            raise UnreadableMessage(f"sent what cannot be read: {type(error).__name__}: {error}") from error
        if isinstance(message, Started) and self._fork_server is not None:
            self._process = self._fork_server.claim(message.pid)
            self._set_up()
        return message

    def _set_up(self) -> None:
        """Tell a new process what to load."""
        if self.gone:  # it was ended before it was known
            self.gone = False
            self.kill()
            return
        with suppress(OSError):  # dead already, which the next `receive` finds out
            self.connection.send(self._setup)

    def answer(self, message: object) -> None:
        """Send what it asked for; it may have died or been replaced meanwhile."""
        if not self.connection.closed:
            with suppress(OSError):
                self.connection.send(message)

    def begin_trial(self) -> int:
        """To be called before a trial is sent; returns where the trial's lines begin in the log, in bytes."""
        self._memory_kills = count_memory_kills()
        return self.log.end

    def terminate(self) -> None:
        """Send SIGTERM to the worker and its process group; a worker that handles it ends when its trial has."""
        if self._process is not None:
            self.answer(Stop())
        self._signal(signal.SIGTERM)

    def kill(self) -> None:
        """End the worker and everything it started, for certain, and wait for its end."""
        self._signal(signal.SIGKILL)
        if self._process is not None:
            self._process.wait()
        self.gone = True

    def wait(self, timeout: float) -> None:
        """Wait for the worker's end, `timeout` seconds at most, then kill it."""
        if self._process is not None:
            with suppress(subprocess.TimeoutExpired):
                self._process.wait(timeout)
        self.kill()

    def _signal(self, number: signal.Signals) -> None:
        if self.gone or self._process is None:  # its process group's number may be somebody else's by now
            return
        with suppress(ProcessLookupError):
            os.killpg(self._process.pid, number)

    def cause_of_death(self) -> str:
        """How the dead worker ended, in the words that are stored with its trial."""
        if self._process is None:
            return f"not started: {self.refused}" if self.refused else "not started"
        code = self._process.wait()
        if code == -signal.SIGKILL and count_memory_kills() > self._memory_kills:
            return KILLED_FOR_MEMORY
        return f"killed by signal {-code}" if code < 0 else f"exit code {code}"


def count_memory_kills(cgroups: Path = _CGROUPS, mine: Path = _MINE) -> int:
    """How many processes of this one's memory cgroup the kernel has killed for want of memory.

    Version 2 counts in memory.events, version 1 in memory.oom_control; 0 where the kernel does not say.
    """
    with suppress(OSError):
        for line in mine.read_text().splitlines():
            _, controllers, path = line.split(":", 2)
            if "memory" in controllers.split(","):
                file = cgroups / "memory" / path.lstrip("/") / "memory.oom_control"
            elif not controllers and (cgroups / "cgroup.controllers").exists():
                file = cgroups / path.lstrip("/") / "memory.events"
            else:
                continue
            counts = (entry.split() for entry in file.read_text().splitlines())
            return next((int(words[1]) for words in counts if words[0] == "oom_kill"), 0)
    return 0
