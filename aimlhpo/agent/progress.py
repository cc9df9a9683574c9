"""What a running agent shows: its progress as plain numbers, and the interface of the views that show it.

`ProgressMeter` makes a `Progress` of the study's snapshot and the slots, in the agent's main thread. A `View` takes it;
a `ThreadedView` paints in a thread of its own, so that a slow terminal never keeps the agent waiting.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Protocol

from aimlhpo.agent.trial_store import StudySnapshot

PERIOD = 0.5  # seconds between two paintings
FAREWELL = 5.0  # seconds that `stop` waits for a terminal that takes nothing (Ctrl-S, a full pipe)


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
    """Measures finished trials per second since the agent's start; `n_trials` is the budget."""

    def __init__(self, n_trials: int | None) -> None:
        self._n_trials = n_trials
        self._started = time.monotonic()
        self._finished_before: int | None = None

    def progress(self, snapshot: StudySnapshot, slots: Iterable[SlotState]) -> Progress:
        counts = snapshot.counts
        if self._finished_before is None:
            self._finished_before = counts.finished
        elapsed = time.monotonic() - self._started
        done = counts.finished - self._finished_before
        rate = done / elapsed if done else None
        left = max(0, self._n_trials - counts.finished) if self._n_trials is not None else None
        return Progress(
            complete=counts.complete,
            pruned=counts.pruned,
            failed=counts.failed,
            running=counts.running,
            paused=counts.paused,
            n_trials=self._n_trials,
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


class ThreadedView:
    """A view that paints in a thread of its own; subclasses say how."""

    def __init__(self, period: float = PERIOD) -> None:
        self._period = period
        self._snapshot = Progress()
        self._lines: deque[str] = deque(maxlen=1000)
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="aimlhpo-view", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._stopping.set()
        if self._thread.ident is not None:
            self._thread.join(FAREWELL)

    def update(self, snapshot: Progress) -> None:
        self._snapshot = snapshot

    def log(self, line: str) -> None:
        self._lines.append(line)

    def _run(self) -> None:
        try:
            self._show()
        except (OSError, ValueError):
            return  # nobody reads any more (a closed pipe or terminal): the study goes on unseen

    def _show(self) -> None:
        self.begin()
        while not self._stopping.wait(self._period):
            self._paint()
        self._paint()
        self.end(self._snapshot)

    def _paint(self) -> None:
        while self._lines:
            self.paint_line(self._lines.popleft())
        self.paint(self._snapshot)

    def begin(self) -> None:
        """Called once before the first painting."""

    def paint_line(self, line: str) -> None:
        raise NotImplementedError

    def paint(self, snapshot: Progress) -> None:
        raise NotImplementedError

    def end(self, snapshot: Progress) -> None:
        """Called once after the last painting."""
