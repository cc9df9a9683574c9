"""Search space inside the model config: `{hyper_opt: {suggest: int, params: {low: 2, high: 8}}}` at any place."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from aimlhpo.errors import Problem
from aimlhpo.suggestions import did_you_mean, key_path, listing, show

MARK = "hyper_opt"
KEYS = ("suggest", "params", "dependency")


def objects(model: Any, above: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Mapping[str, Any]]]:
    """Every place in the model config that holds a `hyper_opt` object, and the object."""
    if isinstance(model, Mapping) and MARK in model:
        yield above, model
    elif isinstance(model, Mapping):
        for key, value in model.items():
            yield from objects(value, (*above, str(key)))
    elif isinstance(model, list):
        for index, value in enumerate(model):
            yield from objects(value, (*above, str(index)))


def entries(model: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """The objects as entries of `optuna: parameters`, by colon path; ones that make no sense are left out."""
    found = {}
    for path, holder in objects(model):
        inner = holder[MARK]
        if path and isinstance(inner, Mapping) and not list(_problems(path, holder)):
            entry = {"type": inner["suggest"], "settings": dict(inner.get("params", {}))}
            found[":".join(path)] = entry | ({"dependency": inner["dependency"]} if "dependency" in inner else {})
    return found


def problems(model: Mapping[str, Any]) -> list[Problem]:
    """What is wrong with the form of the objects."""
    return [problem for path, holder in objects(model) for problem in _problems(path, holder)]


def _problems(path: tuple[str, ...], holder: Mapping[str, Any]) -> Iterator[Problem]:
    where, inner = key_path("model", *path, MARK), holder[MARK]
    if not path:
        yield Problem(where, "stands at the top", "as the value of a key")
    if any(":" in segment for segment in path):
        yield Problem(where, "stands under a key with a colon", "keys without colons: they separate a path's segments")
    for key in (key for key in holder if key != MARK):
        yield Problem(key_path("model", *path, key), f"stands beside {MARK}", f"{MARK} alone")
    if not isinstance(inner, Mapping):
        yield Problem(where, f"{show(inner)} is not a mapping", listing(KEYS))
        return
    for key in inner:
        if key not in KEYS:
            yield Problem(key_path(where, key), "unknown key", listing(KEYS), did_you_mean(key, KEYS))
    for key in ("suggest", "params"):
        if key not in inner:
            yield Problem(key_path(where, key), "is missing", listing(KEYS))
    if not isinstance(inner.get("params", {}), Mapping):
        yield Problem(key_path(where, "params"), f"{show(inner['params'])} is not a mapping", "arguments of the kind")
