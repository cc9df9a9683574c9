"""How the command line speaks: results on standard output, errors in red on standard error.
The last words of `optimize` and `results`: the best trial, where the files lie, and what ended the study.
"""

from __future__ import annotations

import json
import math
import os
import sys
import traceback
from typing import TYPE_CHECKING, Any, TextIO

from aimlhpo.errors import AimlhpoError, ConfigError, Interrupted, show_number

if TYPE_CHECKING:
    import optuna
    from optuna.trial import FrozenTrial

    from aimlhpo.config.schema import Config
    from aimlhpo.results.table import ResultFiles
    from aimlhpo.search.stopping import StopReason

_RED, _GREEN, _BOLD, _DIM = "31", "32", "1", "2"


def coloured(text: str, code: str, stream: TextIO | None = None) -> str:
    """The text in a colour where the stream is a terminal and NO_COLOR is not set."""
    stream = stream or sys.stdout
    if not stream.isatty() or os.environ.get("NO_COLOR") or os.environ.get("TERM") == "dumb":
        return text
    return f"\x1b[{code}m{text}\x1b[0m"


def green(text: str) -> str:
    return coloured(text, _GREEN)


def bold(text: str) -> str:
    return coloured(text, _BOLD)


def dim(text: str) -> str:
    return coloured(text, _DIM)


def error(text: str) -> None:
    """An error, without a traceback."""
    print(coloured("error:", _RED, sys.stderr), text, file=sys.stderr)


def failure(problem: AimlhpoError) -> None:
    """An error of aimlhpo's own; several problems each begin on a line of their own."""
    if isinstance(problem, ConfigError) and len(problem.problems) > 1:
        error(f"{len(problem.problems)} problems in the configuration")
        print(problem, file=sys.stderr)
    elif isinstance(problem, Interrupted):
        print(problem, file=sys.stderr)
    else:
        error(str(problem))


def bug() -> None:
    """An exception that nobody foresaw: its traceback, and whose fault it is."""
    traceback.print_exc()
    error("this is a bug in aimlhpo, please report it with the lines above")


def as_json(data: Any) -> None:
    """The data as JSON on standard output; what JSON does not know becomes text, nan and infinities null."""
    print(json.dumps(_finite(data), indent=2, default=str, allow_nan=False))


def _finite(data: Any) -> Any:
    if isinstance(data, dict):
        return {key: _finite(value) for key, value in data.items()}
    if isinstance(data, (list, tuple)):
        return [_finite(value) for value in data]
    return None if isinstance(data, float) and not math.isfinite(data) else data


def rows(pairs: list[tuple[str, str]]) -> None:
    """Names and values below each other."""
    width = max(len(name) for name, _ in pairs)
    for name, value in pairs:
        print(f"{name.ljust(width)}  {value}")


def print_results(study: optuna.Study, config: Config, files: ResultFiles) -> bool:
    """Best value, its trial and parameters; results.csv and best.yml. False where no complete trial is feasible."""
    from aimlhpo.results.best import best_trials

    trials = best_trials(study)
    feasible = _tell_feasible(study, config)
    if not trials and feasible:
        print("no trial is complete yet")
    for trial in trials:
        values = zip(config.optuna.metric, trial.values or (), strict=False)
        shown = ", ".join(f"{name} {show_number(value)}" for name, value in values)
        print(f"{bold('best')} {green(shown)} (trial {trial.number}{whence(trial)})")
    for path in (files.results, *files.best):
        print(f"  {path}")
    return feasible


def _tell_feasible(study: optuna.Study, config: Config) -> bool:
    """How many trials keep the constraints; False where trials are complete and none does."""
    from aimlhpo.storage.trials import count, count_feasible

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
    from aimlhpo.storage.trials import origin

    known = origin(trial)
    return f", {known}" if known else ""


def nothing_to_do(config: Config, ended: StopReason) -> str:
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
    from aimlhpo.search.stopping import find_stop_reason
    from aimlhpo.storage.trials import count

    ended = find_stop_reason(study, config, count(study.get_trials(deepcopy=False)))
    if ended:
        print(f"study {config.optuna.study_name} ended by {ended}")
