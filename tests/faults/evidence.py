"""What really ran: a file per trial beside the objective, to which each attempt adds a line when it begins and ends.

The storage is judged against it, so nothing that aimlhpo writes is trusted for the verdict.
"""

from __future__ import annotations

import json
import os
import time
from dataclasses import dataclass
from pathlib import Path

# Training takes SECONDS (0.5 to 1.5 times that, depending on x); it reports ten times. Trials from the number in the
# file `hold` on do not end before that is gone.
OBJECTIVE = """
    import os, sys, time
    from pathlib import Path
    from aimlhpo import BaseObjective

    sys.path.insert(0, {root!r})
    from tests.faults.evidence import held, note

    class Objective(BaseObjective):
        def train(self, trial, conf):
            x = conf["model"]["x"]
            folder = Path(__file__).parent / "evidence"
            note(folder, trial.number, "begin")
            for step in range(10):
                time.sleep({seconds} * (0.5 + x) / 10)
                trial.report(x + step, step)
            while held(folder.parent / "hold", trial.number):
                time.sleep(0.1)
            note(folder, trial.number, "end", x)
            return {{"val_loss": x}}
"""
ROOT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True)
class Line:
    """A trial's beginning or end; `at` is in seconds of this machine's monotonic clock."""

    number: int
    event: str
    pid: int
    parent: int
    at: float
    value: float | None


def objective(seconds: float) -> str:
    return OBJECTIVE.format(root=str(ROOT), seconds=seconds)


def note(folder: Path, number: int, event: str, value: float | None = None) -> None:
    """Add a line in one write; nothing is left to a buffer."""
    folder.mkdir(exist_ok=True)
    entry = {"event": event, "pid": os.getpid(), "parent": os.getppid(), "at": time.monotonic(), "value": value}
    fd = os.open(folder / f"{number:05d}", os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    try:
        os.write(fd, json.dumps(entry).encode() + b"\n")
    finally:
        os.close(fd)


def held(hold: Path, number: int) -> bool:
    try:
        return number >= int(hold.read_text())
    except FileNotFoundError:
        return False


def read(folder: Path) -> list[Line]:
    """All lines, the earliest first."""
    found = [
        Line(int(path.name), **json.loads(line)) for path in folder.glob("*") for line in path.read_text().splitlines()
    ]
    return sorted(found, key=lambda line: line.at)
