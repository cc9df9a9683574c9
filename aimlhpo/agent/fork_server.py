"""The process of which an agent's workers are forked, seen from the agent."""

from __future__ import annotations

import ctypes
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

_PR_SET_CHILD_SUBREAPER = 36
_LOOK = 0.005  # seconds between two looks at whether a worker has ended


class ForkServer:
    """Starts the process that imports the objective, and asks it for workers; they become this process's children."""

    def __init__(self, objective: str, environment: Mapping[str, str], log: Path) -> None:
        self._log = log
        self._awaited = 0
        self._retired = False
        self._requests, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        _adopt_orphans(True)
        with theirs, open(log, "ab") as output:
            command = [sys.executable, "-P", "-m", "aimlhpo.worker.fork_server"]
            self._process = subprocess.Popen(
                [*command, str(theirs.fileno()), str(os.getpid()), objective],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                pass_fds=[theirs.fileno()],
                env=environment,
                start_new_session=True,
            )

    def ask(self, connection: int, log: int, environment: Mapping[str, str]) -> bool:
        """Ask for a worker with that end of its pipe, that log, and that added to its environment.

        False where the template makes no more workers. The answer comes over the worker's own pipe, `Started` or
        `LoadFailed`; the pipe's end without one says that there will be no worker.
        """
        if self._retired:
            return False
        self._awaited += 1
        _adopt_orphans(True)
        try:
            socket.send_fds(self._requests, [json.dumps(environment).encode()], [connection, log])
        except OSError:
            self.retire()
            return False
        return True

    def claim(self, pid: int) -> ForkedProcess | subprocess.Popen[bytes]:
        """The worker that has answered; where forking is not safe, the template itself has become the first one."""
        self._awaited -= 1
        # Once nobody is awaited, what user code leaves behind goes to the system's own reaper again.
        _adopt_orphans(self._awaited > 0)
        return self._process if pid == self._process.pid else ForkedProcess(pid)

    def retire(self) -> None:
        """Ask for no more workers."""
        if not self._retired:
            self._retired = True
            self._requests.close()
            _adopt_orphans(False)

    def close(self) -> None:
        """End the process; workers that were forked of it go on."""
        self.retire()
        if self._process.poll() is None:
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
        with suppress(OSError):
            if self._log.stat().st_size == 0:
                self._log.unlink()


class ForkedProcess:
    """A child that another process has forked for this one; waited for like a `subprocess.Popen`."""

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self._code: int | None = None

    def wait(self, timeout: float | None = None) -> int:
        """The exit code, or minus the signal. Raises subprocess.TimeoutExpired after `timeout` seconds."""
        end = None if timeout is None else time.monotonic() + timeout
        while (code := self._look(block=end is None)) is None:
            if end is not None and time.monotonic() > end:
                raise subprocess.TimeoutExpired(str(self.pid), timeout or 0.0)
            time.sleep(_LOOK)
        return code

    def poll(self) -> int | None:
        """As `wait` gives it, or None while it lives."""
        return self._look(block=False)

    def _look(self, *, block: bool) -> int | None:
        if self._code is None:
            pid, status = os.waitpid(self.pid, 0 if block else os.WNOHANG)
            self._code = os.waitstatus_to_exitcode(status) if pid else None
        return self._code


def _adopt_orphans(wanted: bool) -> None:
    """Have descendants whose parent ends become children of this process, or not."""
    ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, int(wanted), 0, 0, 0)
