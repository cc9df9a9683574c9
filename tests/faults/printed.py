"""What results.csv and best.yml say, held against the storage, value for value."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from optuna.trial import FrozenTrial

Row = tuple[str, str, str]  # state, val_loss and x, as text: empty where there is none


@dataclass(frozen=True)
class Printed:
    """The rows of results.csv by trial number; the trial, val_loss and x of best.yml."""

    rows: dict[int, Row]
    best: tuple[int, float, float] | None


def read(save_path: Path) -> Printed:
    """Both files as they lie there now. Raises ValueError, KeyError or YAMLError where one is half-written."""
    results, best = save_path / "results.csv", save_path / "best.yml"
    return Printed(_rows(results.read_text()) if results.exists() else {}, _best(best) if best.exists() else None)


def _rows(text: str) -> dict[int, Row]:
    if not text.endswith("\n"):
        raise ValueError("results.csv ends in the middle of a line")
    rows = csv.DictReader(text.splitlines(), strict=True)
    return {int(row["number"]): (row["state"], row["val_loss"], row["x"]) for row in rows}


def _best(path: Path) -> tuple[int, float, float]:
    text = path.read_text()
    said: dict[str, Any] = dict(
        line[2:].split(": ", 1) for line in text.splitlines() if line.startswith("# ") and ": " in line
    )
    return int(said["trial"]), float(said["val_loss"]), float(yaml.safe_load(text)["model"]["x"])


def wrong(printed: Printed, trials: Iterable[FrozenTrial]) -> list[int]:
    """Trials of which the files say what the storage does not; what is not printed yet does not count."""
    stored = {trial.number: trial for trial in trials if trial.state.is_finished()}
    rows = {number for number, row in printed.rows.items() if number not in stored or row != _row(stored[number])}
    if printed.best is not None and not _is_of(printed.best, stored.get(printed.best[0])):
        rows.add(printed.best[0])
    return sorted(rows)


def _row(trial: FrozenTrial) -> Row:
    value = trial.value if trial.state.name == "COMPLETE" else None
    return trial.state.name, *("" if number is None else str(number) for number in (value, trial.params.get("x")))


def _is_of(best: tuple[int, float, float], trial: FrozenTrial | None) -> bool:
    return trial is not None and best[1:] == (trial.value, trial.params["x"])


def misprinted(save_path: Path, trials: Sequence[FrozenTrial]) -> list[int]:
    """The same of a study that has ended: nothing may be missing, and best.yml holds the best."""
    printed = read(save_path)
    ended = {trial.number for trial in trials if trial.state.is_finished()}
    return sorted({*wrong(printed, trials), *(ended - printed.rows.keys()), *_overlooked(printed, trials)})


def _overlooked(printed: Printed, trials: Sequence[FrozenTrial]) -> set[int]:
    """The best trial, where best.yml holds a worse one or none."""
    values = {
        trial.value: trial.number for trial in trials if trial.state.name == "COMPLETE" and trial.value is not None
    }
    missed = values and (printed.best is None or printed.best[1] != min(values))
    return {values[min(values)]} if missed else set()
