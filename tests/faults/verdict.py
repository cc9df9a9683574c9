"""What a fault has cost, judged by what really ran."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from optuna.trial import FrozenTrial

from tests.faults.evidence import Line

# A result is a result once it has outlived its end by this many seconds. A worker that is killed within them may not
# have got rid of it: then the trial counts as interrupted, and is rightly run again.
SETTLED = 1.0


@dataclass(frozen=True)
class Verdict:
    """A row of the table. `resumed` is the longest time, in seconds, from a fault until a trial began."""

    fault: str
    storage: str
    injected: int
    lost: int
    twice: int
    running: int
    missed: int
    resumed: float | None
    note: str = ""

    @property
    def clean(self) -> bool:
        return not (self.lost or self.twice or self.running or self.missed)


@dataclass(frozen=True)
class History:
    """What the harness knows of a run: all lines of evidence, who was killed when, results seen on the way."""

    lines: list[Line]
    killed: Mapping[int, float]
    seen: Mapping[int, float]

    def settled(self) -> list[Line]:
        return [line for line in self.lines if line.event == "end" and not self._cut_off(line)]

    def _cut_off(self, line: Line) -> bool:
        deaths = [self.killed[pid] for pid in (line.pid, line.parent) if pid in self.killed]
        return any(death < line.at + SETTLED for death in deaths)


def lost(history: History, trials: Iterable[FrozenTrial]) -> list[int]:
    """Trials that had a result, and have not, or not that one; and results that no training gave."""
    stored = {trial.number: trial.value for trial in trials if trial.state.name == "COMPLETE"}
    ended = {(line.number, line.value) for line in history.lines if line.event == "end"}
    vanished = {line.number for line in history.settled() if line.number not in stored}
    changed = {number for number, value in history.seen.items() if stored.get(number) != value}
    invented = {number for number, value in stored.items() if (number, value) not in ended}
    return sorted(vanished | changed | invented)


def twice(history: History) -> list[int]:
    """Trials that began again although they had a result."""
    first = {line.number: line.at for line in reversed(history.settled())}
    begun = (line for line in history.lines if line.event == "begin")
    return sorted({line.number for line in begun if line.number in first and line.at > first[line.number]})


def resumed(history: History, faults: Iterable[float]) -> float | None:
    """The longest time from a fault until the next trial began; faults after the last one do not count."""
    times = [line.at for line in history.lines if line.event == "begin"]
    gaps = [min(at for at in times if at > fault) - fault for fault in faults if any(at > fault for at in times)]
    return max(gaps, default=None)


def misprinted(results: Path, trials: Iterable[FrozenTrial]) -> list[int]:
    """Trials that results.csv shows otherwise than the storage, or not at all."""
    with results.open(newline="") as file:
        printed = {
            int(row["number"]): float(row["val_loss"]) for row in csv.DictReader(file) if row["state"] == "COMPLETE"
        }
    stored = {trial.number: trial.value for trial in trials if trial.state.name == "COMPLETE"}
    return sorted(number for number in printed.keys() | stored.keys() if printed.get(number) != stored.get(number))


def missed(trials: Iterable[FrozenTrial], n_trials: int) -> int:
    return abs(sum(trial.state.name in ("COMPLETE", "PRUNED") for trial in trials) - n_trials)
