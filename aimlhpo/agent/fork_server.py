"""The fork server as its parent sees it: a process that imports the objective once, of which workers are forked.

A command that runs a study on this machine starts it first of all, so that the objective is imported while the
configuration is read and checked; the check asks it whether the objective can be loaded, and the agent takes it over.
An agent in a SLURM job starts its own. `aimlhpo.worker.fork_server` is what runs in it.
Everything here is called in the main thread.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Self

from aimlhpo.errors import ObjectiveError
from aimlhpo.processes import adopt_orphans, module_command
from aimlhpo.worker.ranks import without_process_group

_POLL_SECONDS = 0.005
_MESSAGE_BYTES = 1 << 17
_LAST_LINES = 15


class ForkServer:
    """Starts the process at once; it ends with the `with` block, and workers that were forked of it go on.

    `log` gets what importing the objective prints. Without one it is kept aside, until `write_log` names a file.
    """

    def __init__(self, log: Path | None = None) -> None:
        self._log = log
        self._objective: str | None = None
        self._awaited = 0
        self._retired = False
        self._output = tempfile.TemporaryFile() if log is None else open(log, "a+b")  # noqa: SIM115 -- see close
        self._requests, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            self._process = subprocess.Popen(
                module_command("aimlhpo.worker", theirs.fileno(), os.getpid()),
                stdin=subprocess.DEVNULL,
                stdout=self._output,
                stderr=self._output,
                pass_fds=[theirs.fileno()],
                env=without_process_group(os.environ),
                start_new_session=True,
            )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: object, error: object, trace: object) -> None:
        self.close()

    def load(self, objective: str, environment: Mapping[str, str]) -> None:
        """Have the file imported, with `environment` added to the process's own; returns at once.

        An empty `objective` imports nothing: the objective is a program.
        """
        self._objective = objective
        with suppress(OSError):  # it has died, which the next request finds out
            self._requests.send(json.dumps([objective, dict(environment)]).encode())

    def verify(self) -> None:
        """Wait until the file is imported.

        Raises ObjectiveError when it cannot be loaded as an objective, with its own traceback last, or what it has
        printed last where there is none.
        """
        if self._objective is None:
            raise RuntimeError("nothing was loaded that could be verified")  # nobody would ever answer
        answer = b""
        with suppress(ConnectionResetError):  # it has died before it read what to import
            answer = self._requests.recv(_MESSAGE_BYTES)
        if answer:
            problem = json.loads(answer)
            if problem is not None:
                message, detail = problem
                raise ObjectiveError(message, detail or self._last_lines())
            return
        code = self._process.wait()
        how = f"was killed by {signal.Signals(-code).name}" if code < 0 else f"ended with exit code {code}"
        raise ObjectiveError(f"{self._objective}: Python {how} while importing it", self._last_lines())

    def write_log(self, log: Path) -> None:
        """Put what importing the objective has printed, if anything, into a file, where that can be written."""
        printed = self._printed()
        if printed:
            with suppress(OSError):  # a full disk keeps no study from training
                log.write_bytes(printed)

    def _last_lines(self) -> str:
        return "\n".join(self._printed().decode(errors="replace").splitlines()[-_LAST_LINES:])

    def _printed(self) -> bytes:
        return os.pread(self._output.fileno(), os.fstat(self._output.fileno()).st_size, 0)

    def ask(self, connection: int, log: int, environment: Mapping[str, str]) -> bool:
        """Ask for a worker with that end of its pipe, that log, and that added to its environment.

        False where the fork server makes no more workers. The answer comes over the worker's own pipe, `Started` or
        `LoadFailed`; the pipe's end without one says that there will be no worker.
        """
        if self._retired:
            return False
        self._awaited += 1
        adopt_orphans()
        try:
            socket.send_fds(self._requests, [json.dumps(environment).encode()], [connection, log])
        except OSError:
            self.retire()
            return False
        return True

    def claim(self, pid: int) -> ForkedProcess | subprocess.Popen[bytes]:
        """The worker that has answered; where forking is not safe, the fork server itself has become the first one."""
        self._awaited -= 1
        # Once nobody is awaited, what user code leaves behind goes to the system's own reaper again.
        adopt_orphans(self._awaited > 0)
        return self._process if pid == self._process.pid else ForkedProcess(pid)

    def retire(self) -> None:
        """Ask for no more workers."""
        if not self._retired:
            self._retired = True
            self._requests.close()
            adopt_orphans(False)

    def close(self) -> None:
        """End the process, and remove its log where that is empty. May be called again."""
        self.retire()
        if self._process.poll() is None:
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
        self._output.close()
        with suppress(OSError):
            if self._log is not None and self._log.stat().st_size == 0:
                self._log.unlink()


class ForkedProcess:
    """A child that another process has forked for this one; waited for like a `subprocess.Popen`."""

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self._code: int | None = None

    def wait(self, timeout: float | None = None) -> int:
        """The exit code, or minus the signal. Raises subprocess.TimeoutExpired after `timeout` seconds."""
        end = None if timeout is None else time.monotonic() + timeout
        while (code := self.poll(os.WNOHANG if end is not None else 0)) is None:
            if end is not None and time.monotonic() > end:
                raise subprocess.TimeoutExpired(str(self.pid), timeout or 0.0)
            time.sleep(_POLL_SECONDS)
        return code

    def poll(self, options: int = os.WNOHANG) -> int | None:
        """What `wait` returns, or None while the process lives; `options` are those of `os.waitpid`."""
        if self._code is None:
            pid, status = os.waitpid(self.pid, options)
            self._code = os.waitstatus_to_exitcode(status) if pid else None
        return self._code
