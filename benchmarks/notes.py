"""What the trials of a run have noted, and what is read from it."""

from __future__ import annotations

import json
import statistics
from collections import defaultdict
from collections.abc import Iterable, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

Note = dict[str, Any]


def read(folder: Path) -> list[Note]:
    """The ended trials, in the order of their beginnings."""
    return sorted((note for note in _lines(folder) if "end" in note), key=lambda note: float(note["begin"]))


def begun(folder: Path) -> list[Note]:
    """The trials that have begun."""
    return [note for note in _lines(folder) if "end" not in note]


def _lines(folder: Path) -> Iterable[Note]:
    for file in folder.glob("*.jsonl"):
        yield from (json.loads(line) for line in file.read_text().splitlines() if line.endswith("}"))


def gaps(trials: Sequence[Note], workers: int) -> list[float]:
    """Seconds from the end of one trial to the begin of the next in the same slot.

    A slot is a process; where every trial has a process of its own, the slot that is freed first is filled first.
    """
    by_process = defaultdict(list)
    for trial in trials:
        by_process[trial["pid"]].append(trial)
    if len(by_process) <= workers:
        slots = by_process.values()
        return [after["begin"] - before["end"] for slot in slots for before, after in pairwise(slot)]
    ends = sorted(float(trial["end"]) for trial in trials)
    return [max(0.0, trial["begin"] - end) for trial, end in zip(trials[workers:], ends, strict=False)]


def throughput(trials: Sequence[Note]) -> float:
    """Trials per second, from the first begin to the last end."""
    return len(trials) / (max(trial["end"] for trial in trials) - trials[0]["begin"])


def quantiles(values: Sequence[float]) -> dict[str, float]:
    """The median, the 99th percentile and the number of the values."""
    ordered = sorted(values)
    return {
        "median": statistics.median(ordered),
        "p99": ordered[min(len(ordered) - 1, int(0.99 * len(ordered)))],
        "count": len(ordered),
    }


def to_target(trials: Sequence[Note], target: float, started: float) -> dict[str, float | None]:
    """Seconds and trials until a trial has ended at the target or below it; None where none has."""
    by_end = sorted(trials, key=lambda trial: float(trial["end"]))
    for number, trial in enumerate(by_end, 1):
        if trial["value"] <= target:
            return {"seconds": trial["end"] - started, "trials": number, "best": min(t["value"] for t in trials)}
    return {"seconds": None, "trials": None, "best": min((t["value"] for t in trials), default=None)}
