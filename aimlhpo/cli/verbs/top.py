"""`aimlhpo top`: the best trials of a study, in a table."""

from __future__ import annotations

import csv
import sys
from argparse import Namespace
from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from aimlhpo.cli.messages import print_json
from aimlhpo.errors import ExitCode, show, show_duration, show_number
from aimlhpo.results.best import describe, ranking
from aimlhpo.results.confirmation import CELLS, Confirmation, confirmation_cells, read_confirmation
from aimlhpo.results.table import Columns
from aimlhpo.storage.study import load_study
from aimlhpo.storage.trials import PEAKS, count, count_feasible, read_record

if TYPE_CHECKING:
    from optuna.trial import FrozenTrial

    from aimlhpo.config.schema import Config

_LONGEST_CELL = 24  # characters


def run(config: Config, arguments: Namespace) -> int:
    study = load_study(config)
    best = ranking(study, arguments.number)
    confirmation = read_confirmation(study)
    if arguments.json:
        print_json(
            [
                {"rank": rank, **asdict(describe(trial, config, confirmation=confirmation))}
                for rank, trial in enumerate(best, 1)
            ]
        )
    elif arguments.csv:
        records = [read_record(trial, config.optuna.metric) for trial in best]
        values = [config.space.values(record.params) for record in records]
        columns = Columns.declared(config.space, config.optuna.metric).joined(records, values)
        rows = zip(records, values, strict=True)
        csv.writer(sys.stdout, lineterminator="\n").writerows(
            [columns.header(), *(columns.row(record, chosen) for record, chosen in rows)]
        )
    else:
        _print_table(best, config, confirmation)
        if config.optuna.constraints:
            trials = study.get_trials(deepcopy=False)
            print(f"{count_feasible(trials)} of {count(trials).complete} complete trials are feasible")
    return ExitCode.DONE


def _print_table(best: Sequence[FrozenTrial], config: Config, confirmation: Confirmation | None) -> None:
    if not best:
        print(
            "no trial is complete yet" if not config.optuna.constraints else "no complete trial keeps the constraints"
        )
        return
    several = len(config.optuna.metric) > 1
    print(f"{config.optuna.study_name}: " + ("the Pareto front, then the next ones" if several else "the best trials"))
    hidden = print_columns(_columns(best, config, confirmation))
    if hidden:
        print(f"no room for: {', '.join(hidden)}; --csv has all")
    if confirmation is not None:
        print(f"confirmed: {confirmation}; all of it: aimlhpo confirm {config.paths.save_path}")


def print_columns(columns: Sequence[Sequence[str]]) -> list[str]:
    """Print a table given by columns, each with its name first; returns the names of those that have no room."""
    console = Console()
    if not console.is_terminal:
        console.width = 100_000  # a pipe has room for all columns
    shown, width = [], 0
    for column in columns:
        width += max(map(len, column)) + 2
        if width > console.width + 1:
            break
        shown.append(column)
    table = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False)
    for name, *cells in shown:
        table.add_column(Text(name), no_wrap=True, justify="right" if all(map(_is_number, cells)) else "left")
    for row in zip(*(cells for _, *cells in shown), strict=True):
        table.add_row(*map(Text, row))
    console.print(table)
    return [name for name, *_ in columns[len(shown) :]]


def _columns(best: Sequence[FrozenTrial], config: Config, confirmation: Confirmation | None) -> list[list[str]]:
    """The table by columns, each with its name first; parameters by the order of the files."""
    records = [read_record(trial, config.optuna.metric) for trial in best]
    values = [config.space.values(record.params) for record in records]
    names = dict.fromkeys([parameter.name for parameter in config.space.parameters])
    names.update(dict.fromkeys(name for chosen in values for name in chosen))
    columns = [["trial", *(str(record.number) for record in records)]]
    for metric in config.optuna.metric:
        columns.append([metric, *(_cell(record.metrics.get(metric)) for record in records)])
    if confirmation is not None:
        found = {row[0]: row for row in confirmation_cells(confirmation)}
        rows = [found.get(str(record.number), ("-",) * len(CELLS)) for record in records]
        columns += [[CELLS[place], *(row[place] for row in rows)] for place in range(2, len(CELLS))]
    for name in names:
        columns.append([name, *(_cell(chosen[name]) if name in chosen else "-" for chosen in values)])
    columns.append(["time", *(show_duration(record.seconds) for record in records)])
    for name in PEAKS:
        known = [record.peaks.get(name) for record in records]
        if any(known):
            columns.append([name, *("-" if peak is None else f"{peak:.0f}" for peak in known)])
    columns.append(["worker", *(record.worker or "-" for record in records)])
    return [[_cut(cell) for cell in column] for column in columns]


def _cell(value: Any) -> str:
    return show_number(value) if isinstance(value, float) else value if isinstance(value, str) else show(value)


def _cut(text: str) -> str:
    text = " ".join(text.split())
    return text if len(text) <= _LONGEST_CELL else f"{text[: _LONGEST_CELL - 1]}~"


def _is_number(cell: str) -> bool:
    return cell == "-" or cell.replace(".", "").replace("-", "").replace("+", "").replace("e", "").isdigit()
