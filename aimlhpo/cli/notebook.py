"""`aimlhpo.optimize`: a study run from a notebook or a script, as `aimlhpo optimize --local` runs it.

The agent runs in the caller's process, and the workers in processes of their own, as ever: they import the objective
from its file. Nothing of it stays behind in the caller's process: signal handlers, Optuna's logging and the garbage
collector are as they were before.
"""

from __future__ import annotations

import gc
import inspect
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import optuna

from aimlhpo.agent.fork_server import ForkServer
from aimlhpo.agent.progress import Progress, View
from aimlhpo.check.check import check
from aimlhpo.check.samplers import warnings_for
from aimlhpo.check.settings import load_config
from aimlhpo.cli.live_view import LinesView
from aimlhpo.cli.loading import import_objective
from aimlhpo.cli.verbs.optimize import begin
from aimlhpo.config.load import Source, read_mapping
from aimlhpo.config.resolve import absolute
from aimlhpo.errors import ConfigError, ObjectiveError, Problem, show
from aimlhpo.launch.base import launcher_for
from aimlhpo.ledger.changes import current_config
from aimlhpo.objective.base import being_imported
from aimlhpo.results.opened import OpenedStudy, open_study
from aimlhpo.results.table import write_results
from aimlhpo.search.stopping import ended_already, find_stop_reason
from aimlhpo.storage.open import disconnect_storage
from aimlhpo.storage.trials import count

if TYPE_CHECKING:
    from aimlhpo.config.schema import Config

_WHERE = "optuna: objective"
_A_FILE = "the path of the Python file that holds class Objective, or that class"


def optimize(
    hyperparameters: Source | None = None,
    model: Source | None = None,
    *,
    workers: int | None = None,
    quiet: bool = False,
    allow_changes: bool = False,
    **keys: Any,
) -> OpenedStudy:
    """Search for the best configuration on this machine, and wait until the study ends.

    Args:
        hyperparameters: the hyperparameter YAML, or a dict of what it would hold; nothing where keywords say it all.
        model: the model configuration: a YAML file, or a dict.
        workers: how many trials train at once (default: one for each GPU with gpu=True, else one).
        quiet: print nothing while the study runs.
        allow_changes: go on with a study whose ranges or model configuration have changed.
        **keys: keys of the `optuna` section, which go before those of the file: n_trials, metric, parameters,
            save_path, reload, ... `objective` may also be the class, where it can be imported from a file. Without
            `study_name`, the study is named after its save_path.

    Returns:
        The study as `aimlhpo.open_study` opens it.

    Raises:
        ConfigError: something is wrong with what was given; all problems at once.
        ObjectiveError: the objective cannot be loaded.
        StudyError: the study is there and does not fit, or is not there with reload=True.
        StudyFailed: too many trials in a row have failed.
        StorageError: the storage cannot be reached.
        Interrupted: Ctrl-C, or the kernel's interrupt button; what was running was given back.
    """
    file = being_imported()
    if file is not None:
        raise ObjectiveError(
            f"{file}: aimlhpo.optimize is called when a worker imports the file.\n"
            '    Put what is for the script alone under: if __name__ == "__main__":'
        )
    if workers is not None and (not isinstance(workers, int) or workers < 1):
        raise ConfigError(Problem("workers", f"{show(workers)} is not a number of workers", "a whole number from 1"))
    say: Callable[[str], None] = (lambda line: None) if quiet else print
    with ExitStack() as stack:
        stack.enter_context(_process_left_as_it_was())
        fork_server = stack.enter_context(ForkServer())
        start_import = partial(import_objective, fork_server, workers=workers, local=True)
        given = _with_keys(hyperparameters, keys)
        config = load_config(given, model if model is not None else {}, when_read=start_import)
        problems = check(config, local=True, allow_changes=allow_changes, fork_server=fork_server)
        if problems:
            raise ConfigError(problems)
        for warning in warnings_for(config):
            _note(say, warning)
        given_keys = {f"optuna:{key}" for key in keys}
        study, config = begin(config, allow_changes=allow_changes, given=given_keys, say=say, note=partial(_note, say))
        _run(study, config, workers, fork_server, quiet, say)
        return open_study(config.paths.save_path)


def _run(
    study: optuna.Study,
    config: Config,
    workers: int | None,
    fork_server: ForkServer,
    quiet: bool,
    say: Callable[[str], None],
) -> None:
    try:
        ended = ended_already(study, config)
        if ended is None:
            view = NoView() if quiet else LinesView()
            launcher_for(config, local=True).start(config, view, workers, fork_server)
            config = current_config(study, config)
        write_results(study, config)
        ended = ended or find_stop_reason(study, config, count(study.get_trials(deepcopy=False)))
        if ended is not None:
            say(f"study {config.optuna.study_name} ended by {ended}")
    finally:
        disconnect_storage(study._storage)


def _note(say: Callable[[str], None], note: str) -> None:
    say(f"note: {note}")


class NoView(View):
    """Shows nothing."""

    def start(self) -> None:
        pass

    def stop(self) -> None:
        pass

    def update(self, snapshot: Progress) -> None:
        pass

    def log(self, line: str) -> None:
        pass


@contextmanager
def _process_left_as_it_was() -> Iterator[None]:
    """Undo what commands set for a process of their own; signal handlers are the agent's to put back."""
    verbosity, frozen = optuna.logging.get_verbosity(), gc.get_freeze_count()
    try:
        yield
    finally:
        optuna.logging.set_verbosity(verbosity)
        if not frozen:
            gc.unfreeze()


# --- what was given ---


def _with_keys(hyperparameters: Source | None, keys: Mapping[str, Any]) -> dict[str, Any]:
    """The hyperparameter file's data with these keys in its `optuna` section. Raises ConfigError."""
    given: Source = hyperparameters if hyperparameters is not None else {}
    if isinstance(given, Mapping):
        given = _with_file_of_objective(given)
    data = read_mapping(given, "hyperparameters")
    section = data.get("optuna", {})
    if not isinstance(section, dict):
        return data  # the schema says what it has to be
    if keys.keys() & {"name", "study_name"}:
        section = {key: value for key, value in section.items() if key not in ("name", "study_name")}
    section |= read_mapping(_with_file_of_objective({"optuna": keys}), "hyperparameters")["optuna"]
    if not section.keys() & {"name", "study_name"} and isinstance(section.get("save_path"), str):
        section["study_name"] = Path(absolute(section["save_path"])).name
    return {**data, "optuna": section}


def _with_file_of_objective(data: Mapping[str, Any]) -> Mapping[str, Any]:
    """The same with the file of the objective's class in the place of the class. Raises ConfigError."""
    section = data.get("optuna")
    if not isinstance(section, Mapping) or isinstance(section.get("objective"), str | Path | None):
        return data
    return {**data, "optuna": {**section, "objective": _file_of(section["objective"])}}


def _file_of(objective: Any) -> str:
    """The file that workers get the class from. Raises ConfigError where there is none."""
    if not inspect.isclass(objective):
        found = f"{show(objective)} is of type {type(objective).__name__}"
        raise ConfigError(Problem(_WHERE, found, f"{_A_FILE} (not an instance)"))
    module = sys.modules.get(objective.__module__)
    file = getattr(module, "__file__", None)
    if file is None or not str(file).endswith(".py"):
        found = f"class {objective.__name__} is known to this process alone, and workers import it from a file"
        legal = (
            "in a notebook, put `%%writefile objective.py` into the first line of the cell, run it, and give "
            'objective="objective.py"; elsewhere, put the class into a file'
        )
        raise ConfigError(Problem(_WHERE, found, legal))
    if getattr(module, "Objective", None) is not objective:
        found = f"{file} has class {objective.__qualname__}, and workers look for Objective"
        raise ConfigError(Problem(_WHERE, found, f"Objective = {objective.__name__} at the top of the file"))
    return str(Path(file).resolve())
