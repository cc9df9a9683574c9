"""`aimlhpo results`: rebuild results.csv and best.yml from the storage. Other verbs print their results with it."""

from __future__ import annotations

from argparse import Namespace
from typing import TYPE_CHECKING

from aimlhpo.cli.messages import bold, green
from aimlhpo.errors import ExitCode, show_number
from aimlhpo.results.best import best_trials
from aimlhpo.results.table import ResultFiles, write_results
from aimlhpo.storage.study import load_study
from aimlhpo.storage.trials import count, count_feasible, origin

if TYPE_CHECKING:
    import optuna

    from aimlhpo.config.schema import Config


def run(config: Config, arguments: Namespace) -> int:
    study = load_study(config)
    files = write_results(study, config)
    print(f"{files.rows} finished trials of study {config.optuna.study_name}")
    print_results(study, config, files)
    return ExitCode.DONE


def print_results(study: optuna.Study, config: Config, files: ResultFiles) -> bool:
    """Print the best value, its trial, and where results.csv and best.yml are.

    Returns False where trials are complete and none keeps the study's constraints.
    """
    best, feasible = best_trials(study), True
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
    if not best and feasible:
        print("no trial is complete yet")
    for trial in best:
        values = zip(config.optuna.metric, trial.values or (), strict=False)
        shown = ", ".join(f"{name} {show_number(value)}" for name, value in values)
        where_from = f", {origin(trial)}" if origin(trial) else ""  # of a trial that another study has run
        print(f"{bold('best')} {green(shown)} (trial {trial.number}{where_from})")
    for path in (files.results, *files.best):
        print(f"  {path}")
    return feasible
