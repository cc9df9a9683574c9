"""What a running agent shows: its progress as plain numbers, and the interface of the views that show it.

`ProgressMeter` makes a `Progress` of the study's snapshot and the slots, in the agent's main thread. A `View` takes it.
"""

from __future__ import annotations

import time
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from aimlhpo.agent.trial_store import StudySnapshot


@dataclass(frozen=True)
class SlotState:
    """One slot: the trial it runs (None when idle), for how many seconds, and its last (step, value)."""

    slot: int
    device: str
    trial: int | None = None
    seconds: float = 0.0
    last_report: tuple[int, float] | None = None


@dataclass(frozen=True)
class Progress:
    """The study's counts and this agent's slots at one moment.

    `paused` trials wait to be promoted, `n_trials` is the budget of complete + pruned trials (None: no budget), `best`
    is (trial number, value), `elapsed` and `eta` are seconds, `rate` is finished trials per second of this run.
    """

    complete: int = 0
    pruned: int = 0
    failed: int = 0
    running: int = 0
    paused: int = 0
    n_trials: int | None = None
    best: tuple[int, float] | None = None
    slots: tuple[SlotState, ...] = ()
    elapsed: float = 0.0
    rate: float | None = None
    eta: float | None = None

    @property
    def finished(self) -> int:
        """Trials that count against the budget."""
        return self.complete + self.pruned


class ProgressMeter:
    """Measures finished trials per second since the agent's start."""

    def __init__(self) -> None:
        self._started = time.monotonic()
        self._finished_before: int | None = None

    def progress(self, snapshot: StudySnapshot, n_trials: int | None, slots: Iterable[SlotState]) -> Progress:
        """The study and the slots as they are now; `n_trials` is the budget."""
        counts = snapshot.counts
        if self._finished_before is None:
            self._finished_before = counts.finished
        elapsed = time.monotonic() - self._started
        done = counts.finished - self._finished_before
        rate = done / elapsed if done else None
        left = max(0, n_trials - counts.finished) if n_trials is not None else None
        return Progress(
            complete=counts.complete,
            pruned=counts.pruned,
            failed=counts.failed,
            running=counts.running,
            paused=counts.paused,
            n_trials=n_trials,
            best=snapshot.best,
            slots=tuple(slots),
            elapsed=elapsed,
            rate=rate,
            eta=left / rate if rate and left is not None else None,
        )


class View(Protocol):
    """Shows how the study goes. All calls return at once, whatever the terminal does.

    `log` may be called from any thread, the others from the agent's main thread.
    """

    def start(self) -> None:
        """Begin to show."""

    def stop(self) -> None:
        """Show the last state once more and leave it there."""

    def update(self, snapshot: Progress) -> None:
        """Take the newest state."""

    def log(self, line: str) -> None:
        """Show a line that is worth keeping: a failed trial, an outage."""
