"""Reasons to stop an agent: a request from within, a signal, the end of its job's time.

Whoever finds a reason to stop puts it into the `StopRequest`; the agent's loop obeys. Everything here runs in the
agent's main thread; the storage thread only reads `StopRequest.requested`, to know how long to wait for the storage.
"""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from types import FrameType

from aimlhpo.errors import AimlhpoError

NODE_LOST = "lost node"
"""How the cause begins with which an agent stops whose job has lost a node; the node's name follows."""


class StopRequest:
    """The first reason to stop.

    Attributes:
        cause: why the running trials are given back, as it is stored with them; None while the agent goes on.
        after_trials: whether no more trials are begun; those that run go on to their end.
        error: what the study is given up for.
    """

    def __init__(self) -> None:
        self.cause: str | None = None
        self.after_trials = False
        self.error: AimlhpoError | None = None

    def request(self, cause: str) -> None:
        self.cause = self.cause or cause

    def give_up(self, error: AimlhpoError) -> None:
        """Stop because of an error, which the agent raises in the end."""
        self.error = self.error or error
        self.request("study given up")

    @property
    def requested(self) -> bool:
        return self.cause is not None


LOCAL = {
    signal.SIGINT: "stopped by user",
    signal.SIGTERM: "stopped by user",
    signal.SIGHUP: "stopped by user",
}
"""What signals mean to an agent outside SLURM."""


class SignalTrap:
    """Notes the first signal that came, and makes `fileno` readable for whoever waits on it.

    Args:
        causes: the signals to catch, with the cause that each of them stands for. Outside of the main thread, where
            Python gives no signals, none is caught.
    """

    def __init__(self, causes: Mapping[signal.Signals, str]) -> None:
        self._causes = causes
        self._previous: dict[int, object] = {}
        self._read, self._write = os.pipe()
        os.set_blocking(self._write, False)
        self.cause: str | None = None

    def __enter__(self) -> SignalTrap:
        here = threading.current_thread() is threading.main_thread()
        for number in self._causes if here else ():
            self._previous[number] = signal.signal(number, self._note)
        return self

    def __exit__(self, kind: object, error: object, trace: object) -> None:
        for number, handler in self._previous.items():
            # None: another language than Python has set it, and Python cannot set it again.
            signal.signal(number, signal.SIG_DFL if handler is None else handler)  # type: ignore[arg-type]
        os.close(self._read)
        os.close(self._write)

    def fileno(self) -> int:
        return self._read

    def clear(self) -> None:
        os.read(self._read, 1)

    def _note(self, number: int, frame: FrameType | None) -> None:
        if self.cause is None:
            self.cause = self._causes[signal.Signals(number)]
            os.write(self._write, b".")


@dataclass(frozen=True)
class AgentJob:
    """The SLURM job that an agent runs in.

    Attributes:
        id: the job's id, with the array index.
        restarts: how often SLURM has restarted the job.
        deadline: when the job ends, in seconds since the epoch; None where it has no time limit.
    """

    id: str
    restarts: int = 0
    deadline: float | None = None


_MARGIN_SHARE, _LONGEST_MARGIN = 0.1, 60.0  # of the time left at the start; seconds


class Walltime:
    """A deadline, less a margin in which the running trials can be given back.

    Args:
        deadline: in seconds since the epoch; None for no limit.
    """

    def __init__(self, deadline: float | None) -> None:
        self._end = None
        if deadline is not None:
            left = deadline - time.time()
            self._end = time.monotonic() + left - min(_MARGIN_SHARE * left, _LONGEST_MARGIN)

    def is_over(self) -> bool:
        return self._end is not None and time.monotonic() >= self._end

    def leaves(self, seconds: float) -> bool:
        """Whether that much time is left."""
        return self._end is None or time.monotonic() + seconds < self._end
