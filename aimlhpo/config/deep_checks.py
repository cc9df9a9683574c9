"""What the types of single keys cannot tell: the search space against the model, files, strategies, lengths.

These checks read the plain data, so that they run whatever else is wrong with the file.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from aimlhpo.config.asha_checks import asha_problems
from aimlhpo.config.command_checks import command_problems
from aimlhpo.config.grid_checks import grid_problems
from aimlhpo.config.locations import variable_problems
from aimlhpo.config.pruned_metric import pruned_metric_problems
from aimlhpo.config.resources import resource_problems, without_paths
from aimlhpo.config.sampler_view import view_problems
from aimlhpo.config.space_checks import search_space_problems
from aimlhpo.config.stopping_checks import stopping_problems
from aimlhpo.config.tracking import tracking_problems
from aimlhpo.config.warm_start_section import warm_start_problems
from aimlhpo.errors import Problem
from aimlhpo.suggestions import key_path, show

OUR_KEYS = {"sampler": (), "pruner": ("metric",), "terminator": ()}
"""Keys of a strategy that are no arguments of its class."""


def problems(hyperparameters: Mapping[str, Any], model: Mapping[str, Any]) -> list[Problem]:
    """Every problem that the schema alone does not see."""
    optuna = hyperparameters.get("optuna")
    found = [*_reserved(model), *tracking_problems(hyperparameters.get("log"))]
    if isinstance(optuna, Mapping):
        space = search_space_problems(optuna, model)
        found += [
            *(space or grid_problems(optuna, model)),
            *_objective(optuna),
            *command_problems(optuna, model),
            *_lengths(optuna),
            *stopping_problems(optuna),
            *warm_start_problems(optuna),
            *_strategies(optuna),
            *view_problems(optuna),
            *resource_problems(optuna, model),
            *pruned_metric_problems(optuna),
            *asha_problems(optuna),
        ]
    return found


def _reserved(model: Mapping[str, Any]) -> Iterator[Problem]:
    if "optuna" in model:
        legal = "another key: objectives find the study's own section under conf['optuna']"
        yield Problem("model: optuna", "this key is taken", legal)


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
    for kind in ("sampler", "pruner", "terminator"):
        section = optuna.get(kind)
        if isinstance(section, str):
            section = {"type": section}
        if isinstance(section, Mapping) and isinstance(section.get("type"), str):
            from aimlhpo.strategies import strategy_problems

            entry = {key: value for key, value in without_paths(section).items() if key not in OUR_KEYS[kind]}
            yield from strategy_problems(kind, entry, key_path("optuna", kind))
