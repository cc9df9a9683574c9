"""The last words of `optimize` and `results`: the best trial, and where the files lie."""

from __future__ import annotations

from typing import TYPE_CHECKING

from aimlhpo import readable
from aimlhpo.cli import messages

if TYPE_CHECKING:
    import optuna

    from aimlhpo.config import Config
    from aimlhpo.results import ResultFiles


def print_results(study: optuna.Study, config: Config, files: ResultFiles) -> None:
    """Best value, its trial and parameters; results.csv and best.yml."""
    from aimlhpo.best import best_trials

    trials = best_trials(study)
    if not trials:
        print("no trial is complete yet")
    for trial in trials:
        values = zip(config.optuna.metric, trial.values or (), strict=False)
        shown = ", ".join(f"{name} {readable.number(value)}" for name, value in values)
        print(f"{messages.bold('best')} {messages.green(shown)} (trial {trial.number})")
    for path in (files.results, *files.best):
        print(f"  {path}")
