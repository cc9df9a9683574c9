"""From what pydantic found to problems in our own words.
From two YAML files and the command line to one checked Config, or to all problems at once.
"""

from __future__ import annotations

import copy
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError

from aimlhpo.config.optuna_section import resolve_warm_start
from aimlhpo.config.overrides import Overridden, apply
from aimlhpo.config.resolve import (
    absolute,
    absolute_classes,
    default_storage,
    fill_resources,
    resolve_storage,
    resolve_tracking,
    storage_problems,
)
from aimlhpo.config.sbatch_options import normalise
from aimlhpo.config.schema import Config, HyperparameterFile
from aimlhpo.config.yaml import load_yaml
from aimlhpo.errors import ConfigError, Problem, did_you_mean, key_path, listing, show
from aimlhpo.paths import StudyPaths
from aimlhpo.space.grid import fill_n_trials
from aimlhpo.space.model_paths import search_entries
from aimlhpo.space.parameter_types import as_number

Location = tuple[str | int, ...]


def translate(error: ValidationError) -> list[Problem]:
    """One problem for each thing that pydantic refused, in the order of the schema."""
    return [_problem(dict(detail)) for detail in error.errors(include_url=False)]


def _problem(detail: dict[str, Any]) -> Problem:
    location: Location = detail["loc"]
    where = key_path(*location)
    kind, context = detail["type"], detail.get("ctx", {})
    if kind == "aimlhpo":
        return Problem(where, context["found"], context["legal"], context["suggestion"])
    if kind == "missing":
        return Problem(where, "is missing", _description(location))
    if kind == "extra_forbidden":
        return unknown_key(location[:-1], str(location[-1]), fields_at(location[:-1]))
    if kind in ("model_type", "model_attributes_type", "dict_type"):
        return Problem(where, f"{show(detail['input'])} is not a mapping", listing(fields_at(location)) or "a mapping")
    return Problem(where, f"{show(detail['input'])} is not legal here", _description(location))


def unknown_key(above: Iterable[str | int], key: str, known: Iterable[str]) -> Problem:
    """A key that the schema does not have, with the ones that it has."""
    known = list(known)
    where = key_path(*above, key)
    return Problem(where, "unknown key", listing(known) or None, did_you_mean(key, known))


def fields_at(location: Location) -> list[str]:
    """The keys that are legal in the section at `location`."""
    section = _section(location)
    return [field.alias or name for name, field in section.model_fields.items()] if section else []


def _description(location: Location) -> str | None:
    section = _section(location[:-1])
    field = section.model_fields.get(str(location[-1])) if section else None
    return field.description if field else None


def _section(location: Location) -> type[BaseModel] | None:
    """The model that describes the mapping at `location`; parameters stand under keys of their own."""
    section: type[BaseModel] | None = HyperparameterFile
    free_key = False
    for segment in location:
        if free_key:
            free_key = False
            continue
        field = section.model_fields.get(str(segment)) if section else None
        if field is None:
            return None
        section = model_in(field.annotation)
        free_key = segment == "parameters"
    return None if free_key else section


def model_in(annotation: Any) -> type[BaseModel] | None:
    """The model inside an annotation like `Annotated[X, ...] | None` or `dict[str, X]`."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    found = (model_in(argument) for argument in getattr(annotation, "__args__", ()))
    return next((model for model in found if model), None)


def annotate(problems: Iterable[Problem], sources: Mapping[str, str]) -> list[Problem]:
    """Say which command line argument a problem came from, where it came from one."""
    return [
        Problem(f"{p.where} (from {sources[p.where]})", p.found, p.legal, p.suggestion) if p.where in sources else p
        for p in problems
    ]


def read_config(
    hyperparameters: Path, model: Path, overrides: Sequence[str] = (), flags: Mapping[str, Any] | None = None
) -> tuple[Config | None, Overridden, list[Problem]]:
    """Read both files, apply the command line, and check each key by itself.

    Returns the configuration (None where the schema finds problems), the data of both files with the problems of the
    command line, and the problems of the schema. Raises ConfigError for a file that cannot be read.
    """
    target = _read_both(Path(hyperparameters), Path(model))
    apply(target, overrides, flags or {})
    named = _resolve(target.hyperparameters, target.problems)
    _fill_in(target)
    config, problems = _validate(target.hyperparameters, target.model, named)
    return config, target, problems


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
    inside = search_entries(model)
    optuna = hyperparameters.get("optuna")
    parameters = optuna.get("parameters", {}) if isinstance(optuna, dict) else None
    if not inside or not isinstance(parameters, dict):
        return hyperparameters
    return {**hyperparameters, "optuna": {**hyperparameters["optuna"], "parameters": {**parameters, **inside}}}
