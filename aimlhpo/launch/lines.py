"""The view for logs and pipes: plain lines, only when something has changed."""

from __future__ import annotations

import sys
import time
from typing import TextIO

from aimlhpo import readable as shown
from aimlhpo.launch.view import ThreadedView
from aimlhpo.progress import Progress

LEAST_GAP = 2.0  # seconds between two lines


class LinesView(ThreadedView):
    """Writes one line when the number of finished, failed or paused trials changes, at most one per `LEAST_GAP`."""

    def __init__(self, stream: TextIO | None = None, gap: float = LEAST_GAP) -> None:
        super().__init__()
        self._stream = stream or sys.stdout
        self._gap = gap
        self._told: tuple[int, ...] | None = None
        self._told_at = -gap

    def paint_line(self, line: str) -> None:
        self._write(line)

    def paint(self, snapshot: Progress) -> None:
        if _counts(snapshot) != self._told and time.monotonic() - self._told_at >= self._gap:
            self._tell(snapshot)

    def end(self, snapshot: Progress) -> None:
        if _counts(snapshot) != self._told:
            self._tell(snapshot)

    def _tell(self, snapshot: Progress) -> None:
        if self._told is None and not sum(_counts(snapshot)) and not snapshot.running:
            return  # nothing is known yet
        self._told, self._told_at = _counts(snapshot), time.monotonic()
        self._write(summary(snapshot))

    def _write(self, line: str) -> None:
        print(line, file=self._stream, flush=True)


def _counts(snapshot: Progress) -> tuple[int, ...]:
    return snapshot.complete, snapshot.pruned, snapshot.failed, snapshot.paused


def summary(snapshot: Progress) -> str:
    """The state of the study in one line."""
    total = f"/{snapshot.n_trials}" if snapshot.n_trials is not None else ""
    paused = f"{snapshot.paused} paused, " if snapshot.paused else ""
    parts = [
        f"[{shown.duration(snapshot.elapsed)}] {snapshot.finished}{total} trials done",
        f"{snapshot.running} running, {paused}{snapshot.pruned} pruned, {snapshot.failed} failed",
    ]
    if snapshot.best is not None:
        parts.append(f"best {shown.number(snapshot.best[1])} (trial {snapshot.best[0]})")
    if snapshot.rate:
        parts.append(shown.rate(snapshot.rate))
    if snapshot.eta:
        parts.append(f"{shown.duration(snapshot.eta)} left")
    return "; ".join(parts)
