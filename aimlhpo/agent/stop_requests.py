"""Whether the agent is to stop, and why: called by whoever finds a reason, obeyed by the agent's loop.
Signals of the operating system and of SLURM, turned into reasons to stop.
The end of the agent's job, and what still fits before it.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Mapping
from dataclasses import dataclass
from types import FrameType, TracebackType

from aimlhpo.errors import AimlhpoError


class StopRequest:
    """The first reason to stop.

    Attributes:
        cause: why the running trials are given back, in the words stored with them; None while all goes on.
        error: what the study is given up for.
    """

    def __init__(self) -> None:
        self.cause: str | None = None
        self.error: AimlhpoError | None = None

    def call(self, cause: str) -> None:
        self.cause = self.cause or cause

    def give_up(self, error: AimlhpoError) -> None:
        """Stop for an error, which the agent raises in the end."""
        self.error = self.error or error
        self.call("study given up")

    @property
    def called(self) -> bool:
        return self.cause is not None


LOCAL = {
    signal.SIGINT: "stopped by user",
    signal.SIGTERM: "stopped by user",
    signal.SIGHUP: "stopped by user",
}


class SignalTrap:
    """Notes the first signal that came, and wakes whoever waits on `fileno`."""

    def __init__(self, causes: Mapping[signal.Signals, str]) -> None:
        self._causes = causes
        self._previous: dict[int, object] = {}
        self._read, self._write = os.pipe()
        os.set_blocking(self._write, False)
        self.cause: str | None = None

    def __enter__(self) -> SignalTrap:
        for number in self._causes:
            self._previous[number] = signal.signal(number, self._note)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)  # type: ignore[arg-type]
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


_MARGIN_SHARE, _MOST_MARGIN = 0.1, 60.0  # of the time left at the start; seconds


@dataclass(frozen=True)
class AgentJob:
    """The SLURM job that an agent runs in: its id (with the array index), its restarts, its end.

    `deadline` is in seconds since the epoch, None where the job has no time limit.
    """

    id: str
    restarts: int = 0
    deadline: float | None = None


class Walltime:
    """A deadline, kept with a margin in which the running trials can be given back."""

    def __init__(self, deadline: float | None) -> None:
        self._end = None
        if deadline is not None:
            left = deadline - time.time()
            self._end = time.monotonic() + left - min(_MARGIN_SHARE * left, _MOST_MARGIN)

    def is_over(self) -> bool:
        return self._end is not None and time.monotonic() >= self._end

    def leaves(self, seconds: float) -> bool:
        """Whether that much time is left."""
        return self._end is None or time.monotonic() + seconds < self._end
