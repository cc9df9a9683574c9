"""The end of the agent's job, and what still fits before it."""

from __future__ import annotations

import time
from dataclasses import dataclass

_MARGIN_SHARE, _MOST_MARGIN = 0.1, 60.0  # of the time left at the start; seconds


@dataclass(frozen=True)
class Job:
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
