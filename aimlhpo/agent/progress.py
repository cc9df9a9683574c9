"""How fast this run goes, for the live view."""

from __future__ import annotations

import time
from collections.abc import Iterable

from aimlhpo.agent.bookkeeper import Standing
from aimlhpo.progress import Progress, SlotState


class Pace:
    """Measures finished trials per second since the agent's start."""

    def __init__(self, n_trials: int | None) -> None:
        self._n_trials = n_trials
        self._started = time.monotonic()
        self._before: int | None = None

    def progress(self, standing: Standing, slots: Iterable[SlotState]) -> Progress:
        counts = standing.counts
        if self._before is None:
            self._before = counts.finished
        elapsed = time.monotonic() - self._started
        done = counts.finished - self._before
        rate = done / elapsed if done else None
        left = max(0, self._n_trials - counts.finished) if self._n_trials is not None else None
        return Progress(
            complete=counts.complete,
            pruned=counts.pruned,
            failed=counts.failed,
            running=counts.running,
            paused=counts.paused,
            n_trials=self._n_trials,
            best=standing.best,
            slots=tuple(slots),
            elapsed=elapsed,
            rate=rate,
            eta=left / rate if rate and left is not None else None,
        )
