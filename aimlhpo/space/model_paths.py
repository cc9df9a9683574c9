"""The model config: colon paths into it, such as `optimizer:learning_rate` and `layers:0:units`, and the parameters
that it may hold itself, as `{hyper_opt: {suggest: int, params: {low: 2, high: 8}}}` at any place. Pure.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Iterator, Mapping
from difflib import SequenceMatcher
from itertools import islice
from typing import Any

from aimlhpo.errors import ConfigError, Problem, did_you_mean, key_path, listing, show

MOST_COMPARED = 5000  # paths that are looked through for the nearest one
SEARCH_MARK = "hyper_opt"
SEARCH_KEYS = ("suggest", "params", "dependency")


class ModelPathError(ConfigError):
    """A colon path that the model config does not have."""

    def __reduce__(self) -> tuple[type[ModelPathError], tuple[Problem]]:
        return type(self), (self.problems[0],)


def exists(conf: Any, path: str) -> bool:
    """Whether the model config has something at `path`."""
    return _find(conf, path) is not None


def lookup(conf: Any, path: str) -> Any:
    """What stands at `path`. Raises ModelPathError, which names the nearest path that exists."""
    found = _find(conf, path)
    if found is None:
        raise ModelPathError(missing(conf, path))
    container, key = found
    return container[key]


def substitute(conf: Mapping[str, Any], assignments: Mapping[str, Any]) -> dict[str, Any]:
    """A copy of `conf` with every assigned path replaced. Raises ModelPathError for a path that is not there."""
    changed = copy.deepcopy(dict(conf))
    for path, value in assignments.items():
        found = _find(changed, path)
        if found is None:
            raise ModelPathError(missing(conf, path))
        container, key = found
        container[key] = copy.deepcopy(value)
    return changed


def remove(conf: Mapping[str, Any], gone: Iterable[str]) -> dict[str, Any]:
    """A copy of `conf` without these paths; those that are not there are passed over."""
    changed = copy.deepcopy(dict(conf))
    found = [place for place in (_find(changed, path) for path in gone) if place is not None]
    for container, key in sorted(found, key=lambda place: place[1] if isinstance(place[0], list) else 0, reverse=True):
        del container[key]  # the last positions of a list first, so that the others stay where they are
    return changed


def missing(conf: Any, path: str) -> Problem:
    """The problem of a path that is not in the model config."""
    legal = "a path that the model YAML has"
    return Problem(f"model: {path}", "not in the model YAML", legal, nearest(conf, path))


def nearest(conf: Any, path: str) -> str | None:
    """The existing path that looks most like `path`; one with the same last segment is preferred."""
    scored = [(_likeness(path, candidate), candidate) for candidate in islice(paths(conf), MOST_COMPARED)]
    score, best = max(scored, default=(0.0, None), key=lambda pair: pair[0])
    return best if score >= 0.5 else None


def paths(conf: Any, above: str = "") -> Iterator[str]:
    """Every path of the model config, mappings and lists included, in the order of the file."""
    for key, item in _items(conf):
        yield f"{above}{key}"
        yield from paths(item, f"{above}{key}:")


def _items(value: Any) -> Iterator[tuple[Any, Any]]:
    if isinstance(value, Mapping):
        yield from value.items()
    elif isinstance(value, list):
        yield from enumerate(value)


def _likeness(path: str, candidate: str) -> float:
    """How near two paths are: by letters, and more so where only one segment differs."""
    wanted, given = path.lower().split(":"), candidate.lower().split(":")
    same = sum(one == other for one, other in zip(wanted, given, strict=False))
    ratio = SequenceMatcher(None, path.lower(), candidate.lower()).ratio()
    short = wanted[-1] in ("".join(word[:1] for word in given[-1].split("_")), given[-1])
    return ratio + 0.3 * (len(wanted) == len(given) and same == len(wanted) - 1) + 0.2 * short


def _find(conf: Any, path: str) -> tuple[Any, Any] | None:
    """The container and the key in it that `path` names, or None."""
    container: Any = None
    key: Any = None
    value = conf
    for segment in path.split(":"):
        container, key = value, _key(value, segment)
        if key is None:
            return None
        value = container[key]
    return container, key


def _key(container: Any, segment: str) -> Any:
    """The key of `container` that a segment names: text first, then a number that is written alike."""
    if isinstance(container, dict):
        if segment in container:
            return segment
        return next((key for key in container if key is not None and str(key) == segment), None)
    if isinstance(container, list) and segment.isdecimal() and int(segment) < len(container):
        return int(segment)
    return None


def search_objects(model: Mapping[str, Any]) -> tuple[dict[tuple[str, ...], Mapping[str, Any]], list[Problem]]:
    """Every `hyper_opt` object of the model config by its path, and what is wrong with the form of the others."""
    found: dict[tuple[str, ...], Mapping[str, Any]] = {}
    problems: list[Problem] = []

    def visit(value: Any, path: tuple[str, ...]) -> None:
        if not isinstance(value, Mapping) or SEARCH_MARK not in value:
            for key, item in _items(value):
                visit(item, (*path, str(key)))
            return
        wrong = list(_form_problems(path, value))
        problems.extend(wrong)
        if not wrong:
            found[path] = value[SEARCH_MARK]

    visit(model, ())
    return found, problems


def _form_problems(path: tuple[str, ...], holder: Mapping[str, Any]) -> Iterator[Problem]:
    where, inner = key_path("model", *path, SEARCH_MARK), holder[SEARCH_MARK]
    if not path:
        yield Problem(where, "stands at the top", "as the value of a key")
    if any(":" in segment for segment in path):
        yield Problem(where, "stands under a key with a colon", "keys without colons: they separate a path's segments")
    for key in (key for key in holder if key != SEARCH_MARK):
        yield Problem(key_path("model", *path, key), f"stands beside {SEARCH_MARK}", f"{SEARCH_MARK} alone")
    if not isinstance(inner, Mapping):
        yield Problem(where, f"{show(inner)} is not a mapping", listing(SEARCH_KEYS))
        return
    for key in inner:
        if key not in SEARCH_KEYS:
            yield Problem(key_path(where, key), "unknown key", listing(SEARCH_KEYS), did_you_mean(key, SEARCH_KEYS))
    for key in ("suggest", "params"):
        if key not in inner:
            yield Problem(key_path(where, key), "is missing", listing(SEARCH_KEYS))
    if not isinstance(inner.get("params", {}), Mapping):
        yield Problem(key_path(where, "params"), f"{show(inner['params'])} is not a mapping", "arguments of the kind")
