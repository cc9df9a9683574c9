"""The interface of live views, and the thread that keeps slow terminals away from the agent."""

from __future__ import annotations

import threading
from collections import deque
from typing import Protocol

from aimlhpo.progress import Progress

PERIOD = 0.5  # seconds between two paintings
FAREWELL = 5.0  # seconds that `stop` waits for a terminal that takes nothing (Ctrl-S, a full pipe)


class View(Protocol):
    """Shows how the study goes. All calls return at once, whatever the terminal does."""

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
