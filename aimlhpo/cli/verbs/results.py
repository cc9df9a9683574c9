"""What a study has found: `aimlhpo results` rebuilds results.csv and best.yml from the storage, `aimlhpo top` shows the
best trials in a table, and `aimlhpo report` writes a page with figures. Other verbs show the best trials as these do.
"""

from __future__ import annotations

import csv
import shutil
import sys
import time
from argparse import Namespace
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from aimlhpo.cli.messages import bold, dim, green, print_json
from aimlhpo.errors import ExitCode, show, show_duration, show_number
from aimlhpo.ledger.changes import current_config
from aimlhpo.results.best import (
    BestTrial,
    compare_with_default,
    describe,
    describe_best,
    ranking,
    show_change,
    show_values,
)
from aimlhpo.results.confirmation import CELLS, Confirmation, confirmation_cells, read_confirmation
from aimlhpo.results.table import Columns, ResultFiles, write_results
from aimlhpo.search.stopping import find_stop_reason
from aimlhpo.storage.study import load_study
from aimlhpo.storage.trials import PEAKS, count, count_feasible, read_record

if TYPE_CHECKING:
    import optuna
    from optuna.trial import FrozenTrial

    from aimlhpo.config.schema import Config

_MOST_SHOWN = 5  # trials of a Pareto front; `aimlhpo top` has all
_INDENT = " " * 9
_LONGEST_CELL = 24  # characters of a table's cell


def run_results(config: Config, arguments: Namespace) -> int:
    study = load_study(config)
    files = write_results(study, config)
    print(f"{files.rows} finished trials of study {config.optuna.study_name}")
    print_results(study, config, files)
    return ExitCode.DONE


def print_results(study: optuna.Study, config: Config, files: ResultFiles) -> bool:
    """Print the best trials with their configurations, and where results.csv and best.yml are.

    Returns False where trials are complete and none keeps the study's constraints.
    """
    best, feasible = describe_best(study, config), True
    if config.optuna.constraints:
        trials = study.get_trials(deepcopy=False)
        complete, kept = count(trials).complete, count_feasible(trials)
        feasible = not complete or bool(kept)
        if feasible:
            print(f"{kept} of {complete} complete trials are feasible")
        else:
            print(
                f"no trial is feasible: {complete} are complete, and none keeps every constraint; there is no best.yml"
            )
    if feasible and not count(study.get_trials(deepcopy=False)).complete:
        print("no trial is complete yet")
    for line in show_best(best, config):
        print(line)
    for path in (files.results, *files.best):
        print(f"  {path}")
    return feasible


def show_best(best: Sequence[BestTrial], config: Config) -> Iterator[str]:
    """The best trial with the values that it changed, or some of the Pareto front in one line each."""
    save_path = config.paths.save_path
    for trial in best[:_MOST_SHOWN]:
        where_from = f", {trial.origin}" if trial.origin else ""
        yield f"{bold('best')}     {green(show_values(trial.values))} (trial {trial.number}{where_from})"
    if len(best) > 1:
        rest = (
            f"{len(best) - _MOST_SHOWN} more on the Pareto front: " if len(best) > _MOST_SHOWN else "the Pareto front: "
        )
        yield f"{_INDENT}{rest}aimlhpo top {save_path}"
    elif best:
        yield from (f"{_INDENT}{line}" for line in _details(best[0], config))


def _details(trial: BestTrial, config: Config) -> Iterator[str]:
    if trial.confirmed is not None and trial.confirmed.mean is not None:
        yield f"confirmed: {trial.confirmed}"
    if trial.unconfirmed is not None:
        number, values = trial.unconfirmed
        way = f"aimlhpo confirm {config.paths.save_path}"
        yield f"found since: {show_values(values)} (trial {number}), not confirmed: {way}"
    if trial.default is not None:
        yield compare_with_default(trial, config)
    rows = [(change.key, *show_change(change)) for change in trial.changes]
    keys, befores = (max((len(row[column]) for row in rows), default=0) for column in (0, 1))
    room = shutil.get_terminal_size().columns - len(_INDENT)
    for key, before, after in rows:
        line = f"{key.ljust(keys)}  {before.rjust(befores)} -> {after}"
        yield f"{line[: room - 1]}~" if len(line) > room else line
    others = {name: value for name, value in trial.metrics.items() if isinstance(value, int | float | str)}
    if others:
        line = f"also returned: {show_values(others)}"
        yield dim(f"{line[: room - 1]}~" if len(line) > room else line)


def run_top(config: Config, arguments: Namespace) -> int:
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


def run_report(config: Config, arguments: Namespace) -> int:
    study = load_study(config)
    while True:
        config = current_config(study, config)
        ended = _has_ended(study, config)  # before the study is read, so that what is written last is its end
        again = arguments.watch and not ended
        for path in _write_report(study, config, arguments, arguments.every if again else None):
            print(path, flush=True)
        if not again:
            return ExitCode.DONE
        time.sleep(arguments.every)


def _write_report(study: optuna.Study, config: Config, arguments: Namespace, every: float | None) -> list[Path]:
    from aimlhpo.results.page import write_figures, write_report  # no other verb should wait for it

    written, formats = [], [name for name in arguments.format if name != "html"]
    if "html" in arguments.format:
        page = arguments.output if arguments.output and not formats else config.paths.report
        written.append(write_report(study, config, page, refresh=None if every is None else max(1, round(every))))
    if formats:
        written += write_figures(study, config, arguments.output or config.paths.figures, formats)
    return written


def _has_ended(study: optuna.Study, config: Config) -> bool:
    counts = count(study.get_trials(deepcopy=False))
    return find_stop_reason(study, config, counts) is not None and not counts.claimed
