"""What came of searches: figures of a task, ratios over tasks, and both as a table and a picture."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.search.methods import DEFAULT, OPTUNA
from benchmarks.search.simulation import Search
from benchmarks.search.tables import TABLES

Row = dict[str, Any]

NEVER = 2.0  # budgets that a search counts for which did not get there
CHOSEN_ON = frozenset({
    "hartmann", "cancer-boosting", "digits-mlp", "digits-cell", "diabetes-mlp", "friedman-layers", "crossing",
})  # fmt: skip
"""The tasks that were looked at while the default was chosen, beside all published tables; the others were kept out."""


def row_of(task: str, method: str, workers: int, budget: int, searches: Sequence[Search]) -> Row:
    """The figures of one method on one task, one number for each seed."""
    row: Row = {"task": task, "method": method, "workers": workers, "budget_epochs": budget}
    for percent in (5, 1):
        first = [next((p for p in s.progress if p.regret <= percent / 100), None) for s in searches]
        row[f"epochs_to_{percent}_percent"] = [None if p is None else p.epochs for p in first]
        row[f"seconds_to_{percent}_percent"] = [None if p is None else round(p.seconds, 3) for p in first]
    for share in (25, 50, 100):
        row["regret" if share == 100 else f"regret_at_{share}_percent"] = [
            _regret(search, budget * share / 100) for search in searches
        ]
    row["trials"] = [search.trials for search in searches]
    row["failed"] = [search.failed for search in searches]
    row["epochs"] = [search.epochs for search in searches]
    row["whole_trainings"] = [search.complete for search in searches]
    return row


def _regret(search: Search, epochs: float) -> float | None:
    before = [progress.regret for progress in search.progress if progress.epochs <= epochs]
    return before[-1] if before else None


def spent(row: Row, percent: int = 5) -> float:
    """Budgets until a search was within so many percent: the geometric mean over the seeds."""
    return _geometric(
        NEVER if epochs is None else epochs / row["budget_epochs"] for epochs in row[f"epochs_to_{percent}_percent"]
    )


def ratio(
    rows: Iterable[Row], workers: int, tasks: frozenset[str] | None = None, percent: int = 5, method: str = DEFAULT
) -> float | None:
    """What a method spends, as a part of what Optuna's default spends: the geometric mean over the tasks of both.

    None where there are none.
    """
    of = {(row["task"], row["method"]): spent(row, percent) for row in rows if row["workers"] == workers}
    names = {task for task, other in of if other == OPTUNA and (tasks is None or task in tasks)}
    both = [task for task in names if (task, method) in of]
    return _geometric(of[task, method] / of[task, OPTUNA] for task in both) if both else None


def _geometric(values: Iterable[float]) -> float:
    return math.exp(statistics.mean(map(math.log, values)))


def interval(row: Row) -> tuple[float, float]:
    """A bootstrap interval (5 to 95 %) of `spent`."""
    budgets = [NEVER if e is None else e / row["budget_epochs"] for e in row["epochs_to_5_percent"]]
    drawn = np.random.default_rng(0).choice(np.log(budgets), (1000, len(budgets))).mean(axis=1)
    low, high = np.exp(np.percentile(drawn, [5, 95]))
    return float(low), float(high)


def table(rows: Sequence[Row]) -> str:
    """A row for each task and number of workers, the default beside Optuna's; then the means."""
    lines = [
        "| task | workers | aimlhpo | got there | Optuna | got there | ratio | regret at the end, aimlhpo / Optuna |",
        "|---|---|---|---|---|---|---|---|",
    ]
    by_key = {(row["task"], row["workers"], row["method"]): row for row in rows}
    known = CHOSEN_ON.union(TABLES)
    for task, workers in dict.fromkeys((row["task"], row["workers"]) for row in rows):
        ours, theirs = by_key[task, workers, DEFAULT], by_key[task, workers, OPTUNA]
        cells = [task + ("" if task in known else " *"), str(workers)]
        for row in (ours, theirs):
            low, high = interval(row)
            cells += [f"{spent(row):.2f} ({low:.2f} to {high:.2f})", _share(row)]
        ends = " / ".join(f"{statistics.median(_numbers(row['regret'])):.3f}" for row in (ours, theirs))
        lines.append("| " + " | ".join([*cells, f"{spent(ours) / spent(theirs):.2f}", ends]) + " |")
    return "\n".join(lines)


def means(rows: Sequence[Row]) -> str:
    """The ratios over all tasks, over those that the default was chosen on, and over the others."""
    lines = ["| workers | within | all tasks | chosen on | kept out |", "|---|---|---|---|---|"]
    tasks, known = {row["task"] for row in rows}, CHOSEN_ON.union(TABLES)
    for workers in sorted({row["workers"] for row in rows}):
        for percent in (5, 1):
            halves = (None, known, frozenset(tasks - known))
            found = (ratio(rows, workers, half, percent) for half in halves)
            shown = ["-" if value is None else f"{value:.2f}" for value in found]
            lines.append(f"| {workers} | {percent} % | " + " | ".join(shown) + " |")
    return "\n".join(lines)


def by_method(rows: Sequence[Row]) -> str:
    """A row for each method and number of workers: the means over the tasks that it was run on."""
    lines = [
        "| method | workers | tasks, seeds | budgets until within 5 % | got there | to Optuna | within 1 % | to Optuna "
        "| regret at 25, 50, 100 % |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for method, workers in dict.fromkeys((row["method"], row["workers"]) for row in rows):
        mine = [row for row in rows if (row["method"], row["workers"]) == (method, workers)]
        seeds = sorted({len(row["regret"]) for row in mine})
        cells = [method, str(workers), f"{len(mine)}, {' or '.join(map(str, seeds))}"]
        for percent in (5, 1):
            to_optuna = ratio(rows, workers, percent=percent, method=method)
            cells.append(f"{_geometric(spent(row, percent) for row in mine):.2f}")
            if percent == 5:
                cells.append(_share(*mine))
            cells.append("-" if to_optuna is None else f"{to_optuna:.2f}")
        cells.append(", ".join(f"{_mean_regret(mine, key):.2f}" for key in _REGRETS))
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def by_trials(rows: Sequence[Row]) -> str:
    """A row for each method and number of workers, of searches that ended after a number of trials."""
    lines = [
        "| method | workers | trials | regret | trained, in whole trainings | complete |",
        "|---|---|---|---|---|---|",
    ]
    for method, workers in dict.fromkeys((row["method"], row["workers"]) for row in rows):
        mine = [row for row in rows if (row["method"], row["workers"]) == (method, workers)]
        regrets = [min(value, 1.0) for row in mine for value in _numbers(row["regret"])]
        whole = [epochs / row["budget_epochs"] * row["trials"][0] for row in mine for epochs in row["epochs"]]
        complete = [number for row in mine for number in row["whole_trainings"]]
        cells = [method, str(workers), str(mine[0]["trials"][0]), f"{statistics.mean(regrets):.3f}"]
        cells += [f"{statistics.mean(figures):.0f}" for figures in (whole, complete)]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


_REGRETS = ("regret_at_25_percent", "regret_at_50_percent", "regret")


def _mean_regret(rows: Sequence[Row], key: str) -> float:
    """The mean over tasks of the median over seeds; a search without a whole training counts as 1, as bad ones do."""
    return statistics.mean(
        statistics.median(1.0 if value is None else min(value, 1.0) for value in row[key]) for row in rows
    )


def _share(*rows: Row) -> str:
    searches = [epochs for row in rows for epochs in row["epochs_to_5_percent"]]
    return f"{sum(epochs is not None for epochs in searches)} of {len(searches)}"


def _numbers(values: Iterable[float | None]) -> list[float]:
    return [math.inf if value is None else value for value in values]


_TICKS = (0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2)


def plot(rows: Sequence[Row], file: Path) -> None:
    """Draw what each method spends on each task. Needs matplotlib."""
    import matplotlib

    matplotlib.use("svg")
    matplotlib.rcParams["svg.hashsalt"] = "bench"
    from matplotlib import pyplot

    counts = sorted({row["workers"] for row in rows})
    tasks = list(dict.fromkeys(row["task"] for row in rows))[::-1]
    size = (5 * len(counts), 0.35 * len(tasks) + 1.5)
    figure, axes = pyplot.subplots(1, len(counts), figsize=size, squeeze=False, sharex=True)
    axes[0][0].set_xscale("log")
    axes[0][0].set_xticks(_TICKS, [f"{tick:g}" for tick in _TICKS])
    axes[0][0].minorticks_off()
    axes[0][0].set_xlim(min(interval(row)[0] for row in rows) / 1.1, NEVER * 1.1)
    for axis, workers in zip(axes[0], counts, strict=True):
        for method, colour, shift in ((DEFAULT, "#1b6ca8", 0.12), (OPTUNA, "#d1495b", -0.12)):
            mine = [row for row in rows if row["workers"] == workers and row["method"] == method]
            places = [tasks.index(row["task"]) + shift for row in mine]
            lows, highs = zip(*map(interval, mine), strict=True)
            axis.hlines(places, lows, highs, color=colour, linewidth=2)
            axis.plot([spent(row) for row in mine], places, "o", color=colour, label=method)
        axis.set_yticks(range(len(tasks)), tasks if axis is axes[0][0] else [""] * len(tasks))
        axis.set(xlabel="budgets until within 5 % of the best", title=f"{workers} workers")
        axis.grid(axis="x", alpha=0.3)
    axes[0][0].legend(loc="lower left")
    figure.tight_layout()
    figure.savefig(file, metadata={"Date": None})
    pyplot.close(figure)
