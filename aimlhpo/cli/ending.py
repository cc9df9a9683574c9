"""The last words of `optimize` and `results`: the best trial, where the files lie, and what ended the study."""

from __future__ import annotations

from typing import TYPE_CHECKING

from aimlhpo import readable
from aimlhpo.cli import messages

if TYPE_CHECKING:
    import optuna
    from optuna.trial import FrozenTrial

    from aimlhpo.config import Config
    from aimlhpo.results import ResultFiles
    from aimlhpo.stopping import Ended


def print_results(study: optuna.Study, config: Config, files: ResultFiles) -> bool:
    """Best value, its trial and parameters; results.csv and best.yml. False where no complete trial is feasible."""
    from aimlhpo.best import best_trials

    trials = best_trials(study)
    feasible = _tell_feasible(study, config)
    if not trials and feasible:
        print("no trial is complete yet")
    for trial in trials:
        values = zip(config.optuna.metric, trial.values or (), strict=False)
        shown = ", ".join(f"{name} {readable.number(value)}" for name, value in values)
        print(f"{messages.bold('best')} {messages.green(shown)} (trial {trial.number}{whence(trial)})")
    for path in (files.results, *files.best):
        print(f"  {path}")
    return feasible


def _tell_feasible(study: optuna.Study, config: Config) -> bool:
    """How many trials keep the constraints; False where trials are complete and none does."""
    from aimlhpo.counts import count, count_feasible

    if not config.optuna.constraints:
        return True
    trials = study.get_trials(deepcopy=False)
    complete, feasible = count(trials).complete, count_feasible(trials)
    if complete and not feasible:
        print(f"no trial is feasible: {complete} are complete, and none keeps every constraint; there is no best.yml")
        return False
    print(f"{feasible} of {complete} complete trials are feasible")
    return True


def whence(trial: FrozenTrial) -> str:
    """What stands behind the number of a trial that another study has run."""
    from aimlhpo.taken import origin

    known = origin(trial)
    return f", {known}" if known else ""


def nothing_to_do(config: Config, ended: Ended) -> str:
    """Why a study that is started again runs nothing, and what would make it go on."""
    name, budget = config.optuna.study_name, config.optuna.n_trials
    if ended.rule == "n_trials":
        return f"nothing to do: study {name} has finished its {budget} trials (n_trials) before"
    way = f"to go on, set another {ended.rule}, or leave it out"
    if ended.rule == "timeout" and config.optuna.timeout_scope == "submission":
        way = "to go on, start it again with reload: 1"
    return f"nothing to do: study {name} was ended by {ended}\n    {way}"


def print_ended(study: optuna.Study, config: Config) -> None:
    """Which rule ended the study; nothing where it is not at its end."""
    from aimlhpo.counts import count
    from aimlhpo.stopping import ending_of

    ended = ending_of(study, config, count(study.get_trials(deepcopy=False)))
    if ended:
        print(f"study {config.optuna.study_name} ended by {ended}")
