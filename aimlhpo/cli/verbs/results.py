"""`aimlhpo results`: rebuild results.csv and best.yml from the storage. Other verbs print their results with it."""

from __future__ import annotations

from argparse import Namespace
from typing import TYPE_CHECKING

from aimlhpo.cli.best_view import show_best
from aimlhpo.errors import ExitCode
from aimlhpo.results.best import describe_best
from aimlhpo.results.table import ResultFiles, write_results
from aimlhpo.storage.study import load_study
from aimlhpo.storage.trials import count, count_feasible

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
