"""What sweeps and short spellings on the command line do to the two files."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from aimlhpo.config.model_space import MARK
from aimlhpo.model_config import exists, lookup, substitute

DEFAULTS = {"sampler": "TPESampler", "pruner": "MedianPruner"}
SECTIONS = ("log", "slurm", "optuna")


def spelled(path: str, hyperparameters: Mapping[str, Any], model: Mapping[str, Any]) -> str:
    """The colon path that a path means: dots are colons, `sampler` and `pruner` are keys of the optuna section.

    What the model config has goes before all of these.
    """
    colons = path.replace(".", ":")
    for candidate in (path, colons, colons.removeprefix("model:")):
        if exists(model, candidate):
            return candidate
    if path.partition(":")[0] in SECTIONS:
        return path
    if colons.partition(":")[0] in DEFAULTS:
        return f"optuna:{colons}"
    by_name = {_name(key, entry): key for key, entry in _parameters(hyperparameters).items()}
    return by_name.get(path, colons)


def name_strategy(hyperparameters: Mapping[str, Any], rest: str) -> None:
    """Before an argument of the sampler or pruner is set: its class, where the file names none; in place."""
    kind, colon, _ = rest.partition(":")
    optuna = hyperparameters.get("optuna")
    if not colon or kind not in DEFAULTS or not isinstance(optuna, dict):
        return
    section = optuna.get(kind)
    if section is None or isinstance(section, str):
        optuna[kind] = {"type": section or DEFAULTS[kind]}


def is_searched(hyperparameters: Mapping[str, Any], path: str) -> bool:
    """Whether the hyperparameter YAML has a parameter of this key."""
    return path in _parameters(hyperparameters)


def search(
    hyperparameters: dict[str, Any], model: dict[str, Any], path: str, entry: Mapping[str, Any]
) -> dict[str, Any]:
    """Add a parameter or replace the one there, in place; returns the model config.

    What the other had besides type and settings stays: its name in the study, its dependency.
    """
    optuna = hyperparameters.setdefault("optuna", {})
    if not isinstance(optuna, dict) or not isinstance(optuna.setdefault("parameters", {}), dict):
        return model
    before = optuna["parameters"].get(path)
    before = before if isinstance(before, dict) else _inside(model, path)
    optuna["parameters"][path] = {**before, **entry, "settings": {"name": _name(path, before), **entry["settings"]}}
    is_object = exists(model, path) and _is_object(lookup(model, path))
    return substitute(model, {path: None}) if is_object else model


def fix(hyperparameters: Mapping[str, Any], path: str) -> None:
    """A plain value on the command line is the value: a parameter of the same path is searched no more; in place."""
    parameters = _parameters(hyperparameters)
    if isinstance(parameters, dict):
        parameters.pop(path, None)


def _parameters(hyperparameters: Mapping[str, Any]) -> Mapping[str, Any]:
    optuna = hyperparameters.get("optuna")
    parameters = optuna.get("parameters") if isinstance(optuna, Mapping) else None
    return parameters if isinstance(parameters, Mapping) else {}


def _name(key: str, entry: Any) -> str:
    settings = entry.get("settings") if isinstance(entry, Mapping) else None
    return str(settings.get("name", key)) if isinstance(settings, Mapping) else str(key)


def _is_object(value: Any) -> bool:
    return isinstance(value, Mapping) and MARK in value


def _inside(model: Mapping[str, Any], path: str) -> dict[str, Any]:
    """The dependency of a parameter inside the model config."""
    value = lookup(model, path) if exists(model, path) else None
    inner = value.get(MARK) if isinstance(value, Mapping) else None
    return {"dependency": inner["dependency"]} if isinstance(inner, Mapping) and "dependency" in inner else {}
