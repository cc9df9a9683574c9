"""What a fault has cost, judged by what really ran."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import chain

from optuna.trial import FrozenTrial

from tests.faults.evidence import Line

# A result is a result once it has outlived its end by this many seconds. A worker that is killed within them may not
# have got rid of it, nor one that is stopped: then the trial counts as interrupted, and is rightly run again.
SETTLED = 1.0


@dataclass(frozen=True)
class Verdict:
    """A row of the table.

    `misprinted` counts trials that results.csv or best.yml have shown otherwise than the storage; `resumed` are the
    seconds from each fault until a trial began.
    """

    fault: str
    storage: str
    injected: int
    lost: int
    twice: int
    running: int
    missed: int
    misprinted: int
    resumed: tuple[float, ...]
    note: str = ""

    @property
    def clean(self) -> bool:
        return not (self.lost or self.twice or self.running or self.missed or self.misprinted)


@dataclass(frozen=True)
class History:
    """What the harness knows of a run.

    All lines of evidence, who was killed when, results seen on the way, and who was stopped from when to when. Who was
    stopped in the midst of a trial for more than `grace` has rightly been taken for dead, and the trial from it.
    """

    lines: list[Line]
    killed: Mapping[int, float]
    seen: Mapping[int, float]
    frozen: Mapping[int, Sequence[tuple[float, float]]] = field(default_factory=dict)
    grace: float = math.inf

    def settled(self) -> list[Line]:
        return [line for line in self.lines if line.event == "end" and not self._cut_off(line)]

    def _cut_off(self, line: Line) -> bool:
        deaths = [self.killed[pid] for pid in (line.pid, line.parent) if pid in self.killed]
        stops = [stop for pid in (line.pid, line.parent) for stop in self.frozen.get(pid, ())]
        stopped = any(
            since < line.at + SETTLED
            and (line.at < until or (until - since > self.grace and self._begun(line) < until))
            for since, until in stops
        )
        return stopped or any(death < line.at + SETTLED for death in deaths)

    def _begun(self, end: Line) -> float:
        """When the attempt began."""
        begun = (line for line in self.lines if line.event == "begin" and line.at <= end.at)
        return max(line.at for line in begun if (line.number, line.pid) == (end.number, end.pid))


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


def resumed(history: History, faults: Iterable[float]) -> tuple[float, ...]:
    """The time from each fault until the next trial began; faults after the last one do not count."""
    times = [line.at for line in history.lines if line.event == "begin"]
    return tuple(round(min(at for at in times if at > fault) - fault, 3) for fault in faults if max(times) > fault)


def missed(trials: Iterable[FrozenTrial], n_trials: int) -> int:
    return abs(sum(trial.state.name in ("COMPLETE", "PRUNED") for trial in trials) - n_trials)


def total(verdicts: Sequence[Verdict]) -> Verdict:
    """Several runs as one row."""
    counted = ("injected", "lost", "twice", "running", "missed", "misprinted")
    sums = {name: sum(getattr(one, name) for one in verdicts) for name in counted}
    return replace(verdicts[0], **sums, resumed=tuple(chain.from_iterable(one.resumed for one in verdicts)))
