"""From two YAML files and the command line to one checked Config, or to all problems at once."""

from __future__ import annotations

import copy
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from aimlhpo.config import deep_checks, model_space
from aimlhpo.config.grid_checks import fill_n_trials
from aimlhpo.config.locations import absolute, absolute_classes, default_storage, resolve_storage, storage_problems
from aimlhpo.config.overrides import Overridden, apply
from aimlhpo.config.problems import annotate, translate
from aimlhpo.config.resources import fill_resources
from aimlhpo.config.schema import HyperparameterFile
from aimlhpo.config.slurm_options import normalise
from aimlhpo.config.study_config import Config
from aimlhpo.config.tracking import resolve_tracking
from aimlhpo.config.values import as_number
from aimlhpo.config.warm_start_section import resolve_warm_start
from aimlhpo.config.yaml_loader import load_yaml
from aimlhpo.errors import ConfigError, Problem
from aimlhpo.paths import StudyPaths
from aimlhpo.suggestions import show


def load_config(
    hyperparameters: Path, model: Path, overrides: Sequence[str] = (), flags: Mapping[str, Any] | None = None
) -> Config:
    """Read both files, apply the command line, and check everything. Raises ConfigError with all problems."""
    target = _read_both(Path(hyperparameters), Path(model))
    apply(target, overrides, flags or {})
    named = _resolve(target.hyperparameters, target.problems)
    _fill_in(target)
    config, problems = _validate(target.hyperparameters, target.model, named)
    problems += deep_checks.problems(target.hyperparameters, target.model)
    found = target.problems + annotate(dict.fromkeys(problems), target.sources)
    if config is None or found:
        raise ConfigError(found)
    return config


def load_snapshot(paths: StudyPaths) -> Config:
    """The configuration that the study was last started with. Raises ConfigError."""
    target = _read_both(paths.hyperparameters, paths.model)
    config, problems = _validate(target.hyperparameters, target.model, True)
    if config is None or problems or target.problems:
        raise ConfigError(target.problems + problems)
    return config


def load_paths(
    hyperparameters: Path, overrides: Sequence[str] = (), flags: Mapping[str, Any] | None = None
) -> StudyPaths:
    """Where the study of a hyperparameter YAML keeps its files; nothing else of it is checked. Raises ConfigError."""
    target = Overridden(_mapping(Path(hyperparameters)), {})
    apply(target, overrides, flags or {})
    _resolve(target.hyperparameters, target.problems)
    optuna = target.hyperparameters.get("optuna")
    if not isinstance(optuna, dict) or not isinstance(optuna.get("study_name"), str):
        problem = Problem("optuna: study_name", "is missing", "the name of the study")
        raise ConfigError([*target.problems, problem])
    return StudyPaths(Path(str(optuna["save_path"])), optuna["study_name"])


def _read_both(hyperparameters: Path, model: Path) -> Overridden:
    """Both files, or the problems of both."""
    read: list[dict[str, Any]] = []
    problems: list[Problem] = []
    for path, dates in ((hyperparameters, False), (model, True)):
        try:
            read.append(_mapping(path, dates=dates))
        except ConfigError as error:
            problems += error.problems
    if problems:
        raise ConfigError(problems)
    return Overridden(read[0], read[1])


def _mapping(path: Path, *, dates: bool = False) -> dict[str, Any]:
    data = load_yaml(path, dates=dates)
    if not isinstance(data, dict):
        found = "is empty" if data is None else f"holds {show(data)}, which is not a mapping"
        raise ConfigError(Problem(str(path), found, "key: value pairs"))
    return data


def _resolve(hyperparameters: dict[str, Any], problems: list[Problem]) -> bool:
    """Fill in what other keys decide and make paths absolute, in place. Returns whether a storage was named."""
    optuna = hyperparameters.get("optuna")
    if not isinstance(optuna, dict):
        return True
    _resolve_name(optuna, problems)
    optuna["save_path"] = _save_path(hyperparameters.get("log"), optuna)
    if isinstance(optuna.get("objective"), str):
        optuna["objective"] = absolute(optuna["objective"])
    if isinstance(optuna.get("command"), str) and isinstance(optuna.get("working_directory", "."), str):
        optuna["working_directory"] = absolute(optuna.get("working_directory", "."))
    for kind in ("sampler", "pruner", "terminator"):
        if kind in optuna:
            optuna[kind] = absolute_classes(optuna[kind])
    resolve_warm_start(optuna)
    name, storage = optuna.get("study_name"), optuna.get("storage")
    if not isinstance(name, str) or not isinstance(optuna["save_path"], str):
        return storage is not None
    if storage is None:
        optuna["study_name"], optuna["storage"] = default_storage(
            optuna["save_path"], name, _several_jobs(hyperparameters)
        )
        if os.sep in name:
            problems.append(
                Problem("optuna: study_name", f"{show(name)} is a path", "a name; the file lies in save_path")
            )
    elif isinstance(storage, str):
        problems += storage_problems(storage)
        optuna["storage"] = resolve_storage(storage, optuna["save_path"], name)
    resolve_tracking(hyperparameters.get("log"), optuna["save_path"], optuna["study_name"])
    return storage is not None


def _fill_in(target: Overridden) -> None:
    """What the search space and the model decide: a grid's number of trials, a pruner's resources."""
    optuna = target.hyperparameters.get("optuna")
    if isinstance(optuna, dict):
        fill_n_trials(optuna, target.model)
        fill_resources(optuna, target.model)


def _several_jobs(hyperparameters: Mapping[str, Any]) -> bool:
    """Whether the study runs on more than one node."""
    slurm = hyperparameters.get("slurm")
    jobs = as_number(slurm.get("jobs")) if isinstance(slurm, dict) else None
    return jobs is not None and jobs > 1


def _resolve_name(optuna: dict[str, Any], problems: list[Problem]) -> None:
    """`name` is `study_name`."""
    if "name" not in optuna:
        return
    name = optuna.pop("name")
    if optuna.setdefault("study_name", name) != name:
        found = f"is {show(name)}, and study_name is {show(optuna['study_name'])}"
        problems.append(Problem("optuna: name", found, "one of the two keys"))


def _save_path(log: Any, optuna: Mapping[str, Any]) -> Any:
    """optuna's own, or log's, or the current directory."""
    given = optuna.get("save_path")
    if given is None and isinstance(log, dict):
        given = log.get("save_path")
    given = "." if given is None else given
    return absolute(given) if isinstance(given, str) and given.strip() else given


def _validate(
    hyperparameters: dict[str, Any], model: dict[str, Any], storage_named: bool
) -> tuple[Config | None, list[Problem]]:
    checked, problems = _with_options(hyperparameters)
    checked = _with_model_space(checked, model)
    try:
        file = HyperparameterFile.model_validate(checked)
    except ValidationError as error:
        return None, translate(error) + problems
    return Config(file.log, file.slurm, file.optuna, model, hyperparameters, storage_named), problems


def _with_options(hyperparameters: dict[str, Any]) -> tuple[dict[str, Any], list[Problem]]:
    """The file with its sbatch options under their long names."""
    slurm = hyperparameters.get("slurm")
    batch = slurm.get("batch") if isinstance(slurm, dict) else None
    if not isinstance(batch, dict):
        return hyperparameters, []
    options, problems = normalise(batch)
    checked = copy.copy(hyperparameters)
    checked["slurm"] = {**hyperparameters["slurm"], "batch": options}
    return checked, problems


def _with_model_space(hyperparameters: dict[str, Any], model: dict[str, Any]) -> dict[str, Any]:
    """The file with the search space that the model config holds in its own."""
    inside = model_space.entries(model)
    optuna = hyperparameters.get("optuna")
    parameters = optuna.get("parameters", {}) if isinstance(optuna, dict) else None
    if not inside or not isinstance(parameters, dict):
        return hyperparameters
    return {**hyperparameters, "optuna": {**hyperparameters["optuna"], "parameters": {**parameters, **inside}}}
