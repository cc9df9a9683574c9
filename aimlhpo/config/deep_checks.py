"""What the types of single keys cannot tell: the search space against the model, files, strategies, sums.

These checks read the plain data, so that they run whatever else is wrong with the file.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from aimlhpo.config.locations import variable_problems
from aimlhpo.config.parameter_checks import duplicate_names, outside, parameter_problems
from aimlhpo.errors import Problem
from aimlhpo.model_config import exists, missing
from aimlhpo.suggestions import did_you_mean, key_path, listing, show

PARAMETERS = ("optuna", "parameters")


def problems(hyperparameters: Mapping[str, Any], model: Mapping[str, Any]) -> list[Problem]:
    """Every problem that the schema alone does not see."""
    optuna = hyperparameters.get("optuna")
    found = list(_reserved(model))
    if isinstance(optuna, Mapping):
        found += [*_search_space(optuna, model), *_objective(optuna), *_lengths(optuna), *_strategies(optuna)]
    return found


def _reserved(model: Mapping[str, Any]) -> Iterator[Problem]:
    if "optuna" in model:
        legal = "another key: objectives find the study's own section under conf['optuna']"
        yield Problem("model: optuna", "this key is taken", legal)


def _search_space(optuna: Mapping[str, Any], model: Mapping[str, Any]) -> Iterator[Problem]:
    parameters = optuna.get("parameters", {})
    if not isinstance(parameters, Mapping):
        return
    entries = {str(key): entry for key, entry in parameters.items() if isinstance(entry, Mapping)}
    sound = {}
    for key, entry in entries.items():
        problems = parameter_problems((*PARAMETERS, key), entry.get("type"), entry.get("settings"))
        yield from problems
        yield from _path_problems(key, entry, model)
        if not problems and isinstance(entry.get("settings"), Mapping) and entry.get("type"):
            sound[key] = sound[name_of(key, entry)] = entry
    names = {key: name_of(key, entry) for key, entry in entries.items()}
    yield from duplicate_names(PARAMETERS, names)
    yield from _enqueue(optuna.get("enqueue"), [*names.values(), *names], sound)


def name_of(key: str, entry: Mapping[str, Any]) -> str:
    """A parameter's name in the study: `settings: name`, or its key."""
    settings = entry.get("settings")
    return str(settings.get("name", key)) if isinstance(settings, Mapping) else key


def _path_problems(key: str, entry: Mapping[str, Any], model: Mapping[str, Any]) -> Iterator[Problem]:
    if ":" not in key or entry.get("substitute", True) in (False, 0) or exists(model, key):
        return
    absent = missing(model, key)
    legal = "a path that the model YAML has; or `substitute: false` where only custom_updates reads the value"
    yield Problem(key_path(*PARAMETERS, key), absent.found, legal, absent.suggestion)


def _enqueue(trials: Any, known: list[str], sound: Mapping[str, Mapping[str, Any]]) -> Iterator[Problem]:
    for index, trial in enumerate(trials if isinstance(trials, list) else []):
        for key, value in trial.items() if isinstance(trial, Mapping) else ():
            where = key_path("optuna", "enqueue", index, key)
            if str(key) not in known:
                legal = listing(dict.fromkeys(known)) or "none: no parameters are declared"
                yield Problem(where, "no parameter of this name or key", legal, did_you_mean(key, known))
            elif str(key) in sound:
                legal_value = outside(sound[str(key)]["type"], sound[str(key)]["settings"], value)
                if legal_value:
                    yield Problem(where, f"{show(value)} is not in the search space", legal_value)


def _objective(optuna: Mapping[str, Any]) -> Iterator[Problem]:
    path = optuna.get("objective")
    where = key_path("optuna", "objective")
    if isinstance(path, str) and path.strip():
        yield from variable_problems(where, path)
        if "\0" not in path and "${" not in path and not Path(path).is_file():
            found = f"{path} is a directory" if Path(path).is_dir() else f"no such file: {path}"
            yield Problem(where, found, "the path of the Python file that holds class Objective")
    yield from variable_problems(key_path("optuna", "save_path"), optuna.get("save_path"))


def _lengths(optuna: Mapping[str, Any]) -> Iterator[Problem]:
    metric, direction = optuna.get("metric", "val_loss"), optuna.get("direction")
    metrics = len(metric) if isinstance(metric, list) else 1
    directions = len(direction) if isinstance(direction, list) else 1
    if direction is not None and metrics and directions and metrics != directions:
        found = f"{directions} given for {metrics} metrics ({show(metric)})"
        yield Problem(key_path("optuna", "direction"), found, "one direction for each metric")


def _strategies(optuna: Mapping[str, Any]) -> Iterator[Problem]:
    for kind in ("sampler", "pruner"):
        section = optuna.get(kind)
        if isinstance(section, str):
            section = {"type": section}
        if isinstance(section, Mapping) and isinstance(section.get("type"), str):
            from aimlhpo.strategies import strategy_problems

            yield from strategy_problems(kind, dict(section), key_path("optuna", kind))
