"""A pruner's resources as colon paths: `max_resource: trainer:epochs` is the number that the model config has there."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from aimlhpo.config.space_checks import declared
from aimlhpo.errors import Problem
from aimlhpo.model_config import exists, lookup, nearest
from aimlhpo.suggestions import key_path, show

KEYS = ("min_resource", "max_resource")
_STAND_INS = {"min_resource": 1, "max_resource": 1_000_000}
_LEGAL = "a whole number, 1 or more, or the colon path of one in the model YAML"


def fill_resources(optuna: dict[str, Any], model: Mapping[str, Any]) -> None:
    """Put the model config's numbers in place of their paths, in place; a path that is wrong stays."""
    for _, entry, key in _named(optuna):
        if _problem("", entry[key], optuna, model) is None:
            entry[key] = int(lookup(model, entry[key]))


def resource_problems(optuna: Mapping[str, Any], model: Mapping[str, Any]) -> Iterator[Problem]:
    """What is wrong with the paths that are left."""
    for where, entry, key in _named(optuna):
        problem = _problem(key_path(*where, key), entry[key], optuna, model)
        if problem is not None:
            yield problem


def without_paths(entry: Mapping[str, Any]) -> dict[str, Any]:
    """The strategy with numbers for paths that were not resolved, so that everything else in it can be checked."""
    return {key: _stand_in(key, value) for key, value in entry.items()}


def _stand_in(key: str, value: Any) -> Any:
    if isinstance(value, Mapping):
        return without_paths(value)
    return _STAND_INS[key] if key in KEYS and _is_path(value) else value


def _named(optuna: Mapping[str, Any]) -> Iterator[tuple[tuple[str, ...], dict[str, Any], str]]:
    """Every resource of the pruner, or of one that it wraps, that is given as a path: where, the mapping, the key."""
    yield from _inside(("optuna", "pruner"), optuna.get("pruner"))


def _inside(where: tuple[str, ...], entry: Any) -> Iterator[tuple[tuple[str, ...], dict[str, Any], str]]:
    if not isinstance(entry, dict):
        return
    for key, value in entry.items():
        if key in KEYS and _is_path(value):
            yield where, entry, key
        yield from _inside((*where, str(key)), value)


def _is_path(value: Any) -> bool:
    return isinstance(value, str) and value != "auto"


def _problem(where: str, path: str, optuna: Mapping[str, Any], model: Mapping[str, Any]) -> Problem | None:
    if not exists(model, path):
        return Problem(where, f"{show(path)} is not in the model YAML", _LEGAL, nearest(model, path))
    value = lookup(model, path)
    if any(parameter.key == path for parameter in declared(optuna.get("parameters"), model)):
        return Problem(where, f"{path} is searched: it differs from trial to trial", _LEGAL)
    if isinstance(value, bool) or not isinstance(value, int | float) or value != int(value) or value < 1:
        return Problem(where, f"{path} is {show(value)} in the model YAML", _LEGAL)
    return None
