"""The table: a row for each setting, a column for each peer, and how many times aimlhpo's figure it is."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from benchmarks.cells import PEERS, Cell
from benchmarks.measure import TARGET, Figures

Outcome = tuple[Cell, Figures | None, str | None]
_TITLES = {"aimlhpo": "aimlhpo", "optuna": "plain Optuna", "echo": "echo-opt", "syne": "Syne Tune", "ray": "Ray Tune"}


@dataclass(frozen=True)
class Line:
    """What is told of a measure: its name, the figure to compare, and how it is written."""

    name: str
    value: Callable[[Figures], float | None]
    text: Callable[[float], str]
    more_is_better: bool = False


def _duration(seconds: float) -> str:
    return f"{seconds:.1f} s" if seconds >= 9.95 else f"{seconds:.2f} s" if seconds >= 1 else f"{1000 * seconds:.3g} ms"


LINES: dict[str, list[Line]] = {
    "gap": [
        Line("idle gap, median", lambda f: f["median"], _duration),
        Line("idle gap, 99th percentile", lambda f: f["p99"], _duration),
    ],
    "report": [
        Line("report + should_prune, median", lambda f: f["median"], _duration),
        Line("report + should_prune, 99th percentile", lambda f: f["p99"], _duration),
    ],
    "throughput": [
        Line("bookkeeping-only trials per second", lambda f: f["rate"], lambda v: f"{v:.1f}", more_is_better=True)
    ],
    "start": [
        Line("command to first training step (torch)", lambda f: f["seconds"], _duration),
        Line("command to last worker's first step", lambda f: f["all"], _duration),
        Line("memory per worker, all processes", lambda f: f["memory"], lambda v: f"{v:.0f} MB"),
    ],
    "step": [Line("growth of a Python loop's step with reports", lambda f: f["growth"], lambda v: f"{100 * v:.1f} %")],
    "target": [
        Line(f"digits: time to a loss of {TARGET}", lambda f: f["seconds"], _duration),
        Line(f"digits: trials to a loss of {TARGET}", lambda f: f["trials"], lambda v: f"{v:.0f}"),
    ],
}


def table(outcomes: Sequence[Outcome], machine: dict[str, str]) -> str:
    """The page's table in Markdown, what it was taken on, and why cells are empty."""
    head = f"| what | setting | {' | '.join(_TITLES.values())} |\n|---|---|{'---:|' * len(_TITLES)}"
    rows = [
        _row(line, cell, [o for o in outcomes if o[0].row == cell])
        for measure, lines in LINES.items()
        for cell in dict.fromkeys(cell.row for cell, _, _ in outcomes if cell.measure == measure)
        for line in lines
    ]
    about = "; ".join(f"{name} {value}" for name, value in machine.items())
    return "\n".join([about, "", head, *rows, "", *_reasons(outcomes), ""])


def _row(line: Line, cell: Cell, outcomes: Sequence[Outcome]) -> str:
    ours = _figure(line, "aimlhpo", outcomes)
    texts = [_entry(line, _figure(line, peer, outcomes), ours, peer, outcomes) for peer in PEERS]
    return f"| {line.name} | {setting(cell)} | {' | '.join(texts)} |"


def _figure(line: Line, peer: str, outcomes: Sequence[Outcome]) -> float | None:
    """The median over the seeds that have one; None where fewer than half have."""
    found = [figures for cell, figures, _ in outcomes if cell.peer == peer and figures is not None]
    values = [value for figures in found if (value := line.value(figures)) is not None]
    return statistics.median(values) if values and 2 * len(values) >= len(found) else None


def _entry(line: Line, value: float | None, ours: float | None, peer: str, outcomes: Sequence[Outcome]) -> str:
    if value is None:
        measured = any(cell.peer == peer and figures is not None for cell, figures, _ in outcomes)
        return "not reached" if measured else "none" if any(cell.peer == peer for cell, _, _ in outcomes) else ""
    if peer == "aimlhpo" or ours is None or value <= 0 or ours <= 0:
        return line.text(value)
    return f"{line.text(value)} (x {value / ours:.3g})"


def setting(cell: Cell) -> str:
    """The row's setting in words."""
    if cell.measure == "target":
        return f"{cell.workers} workers, {cell.trials} trials, own defaults"
    parts = [cell.storage, f"{cell.workers} worker{'s' * (cell.workers > 1)}"]
    if cell.finished:
        parts.append(f"{cell.finished:,} finished")
    if cell.sampler == "gp":
        parts.append("GP")
    if cell.pruner and cell.pruner != "none":
        parts.append({"median": "median pruner", "asha": "ASHA"}[cell.pruner])
    return ", ".join(parts)


def _reasons(outcomes: Sequence[Outcome]) -> list[str]:
    return [
        f"- {_TITLES[cell.peer]}, {cell.measure}, {setting(cell)}: {reason}" for cell, _, reason in outcomes if reason
    ]
