"""A worker process, seen from its agent."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from contextlib import suppress
from multiprocessing import Pipe
from pathlib import Path

import aimlhpo
from aimlhpo.devices import Slot
from aimlhpo.protocol import Setup

_PACKAGE_ROOT = Path(aimlhpo.__file__).parent.parent
_LAST_LINES = 15
_TAIL_BYTES = 8192


class WorkerProcess:
    """Starts a worker for a slot, with its own log file and its own GPU, and talks to it."""

    def __init__(self, slot: Slot, setup: Setup, log: Path) -> None:
        self.log = log
        self._gone = False
        self.connection, theirs = Pipe()
        with theirs, open(log, "ab") as output:
            self._process = subprocess.Popen(
                [sys.executable, "-P", "-m", "aimlhpo.worker", str(theirs.fileno()), str(os.getpid())],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                pass_fds=[theirs.fileno()],
                env=_environment(slot),
                start_new_session=True,
            )
        self.connection.send(setup)

    @property
    def pid(self) -> int:
        return self._process.pid

    def log_size(self) -> int:
        """Bytes in the log so far: where the next trial's lines begin."""
        return self.log.stat().st_size

    def terminate(self) -> None:
        self._signal(signal.SIGTERM)

    def kill(self) -> None:
        """End the worker and everything it started, for certain, and wait for its end."""
        self._signal(signal.SIGKILL)
        self._process.wait()
        self._gone = True

    def wait(self, timeout: float) -> None:
        """Wait for the worker's end, `timeout` seconds at most, then end it."""
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(timeout)
        self.kill()

    def cause_of_death(self) -> str:
        """How the dead worker ended, in the words that are stored with its trial."""
        code = self._process.wait()
        return f"killed by signal {-code}" if code < 0 else f"exit code {code}"

    def last_lines(self, begin: int) -> str:
        """The end of the log, from byte `begin` on."""
        with open(self.log, "rb") as file:
            file.seek(max(begin, self.log_size() - _TAIL_BYTES))
            return "\n".join(file.read().decode(errors="replace").splitlines()[-_LAST_LINES:])

    def _signal(self, number: signal.Signals) -> None:
        if self._gone:  # its process group's number may be somebody else's by now
            return
        with suppress(ProcessLookupError):
            os.killpg(self._process.pid, number)


def _environment(slot: Slot) -> dict[str, str]:
    """The agent's environment, the slot's devices, and the way to this very package where it is not installed."""
    path = os.pathsep.join(filter(None, [os.environ.get("PYTHONPATH"), str(_PACKAGE_ROOT)]))
    return {**os.environ, "PYTHONUNBUFFERED": "1", "PYTHONPATH": path, **slot.environment()}
