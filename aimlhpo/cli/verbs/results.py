"""`aimlhpo results`: rebuild results.csv and best.yml from the storage. Other verbs show the best trials with it."""

from __future__ import annotations

import shutil
from argparse import Namespace
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from aimlhpo.cli.messages import bold, dim, green
from aimlhpo.errors import ExitCode
from aimlhpo.results.best import BestTrial, compare_with_default, describe_best, show_change, show_values
from aimlhpo.results.table import ResultFiles, write_results
from aimlhpo.storage.study import load_study
from aimlhpo.storage.trials import count, count_feasible

if TYPE_CHECKING:
    import optuna

    from aimlhpo.config.schema import Config

_MOST = 5  # trials of a Pareto front; `aimlhpo top` has all
_INDENT = " " * 9


def run(config: Config, arguments: Namespace) -> int:
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
    for trial in best[:_MOST]:
        where_from = f", {trial.origin}" if trial.origin else ""
        yield f"{bold('best')}     {green(show_values(trial.values))} (trial {trial.number}{where_from})"
    if len(best) > 1:
        rest = f"{len(best) - _MOST} more on the Pareto front: " if len(best) > _MOST else "the Pareto front: "
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
