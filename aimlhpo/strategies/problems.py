"""What is wrong with a sampler or pruner as a configuration names it."""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping
from dataclasses import replace
from importlib.util import find_spec
from typing import Any

from aimlhpo.errors import ConfigError, Problem
from aimlhpo.strategies.annotations import fits, in_words, without_list
from aimlhpo.strategies.building import as_entry, build
from aimlhpo.strategies.catalogue import NEEDS, classes, nested_kind, options, out_of_reach, takes_any
from aimlhpo.strategies.errors import UnknownClassError
from aimlhpo.strategies.naming import class_named
from aimlhpo.suggestions import did_you_mean, key_path, listing, show


def strategy_problems(kind: str, entry: Mapping[str, Any], where: str) -> list[Problem]:
    """What is wrong with a strategy given as a mapping, nested ones included."""
    problems = list(_entry_problems(kind, entry, where))
    if not problems:
        try:
            build(kind, entry, seed=0)
        except ConfigError as error:
            problems += [replace(problem, where=key_path(where, problem.where)) for problem in error.problems]
        except Exception as error:  # noqa: BLE001  whatever a class raises here is about its arguments
            found = " ".join(str(error).split()) or type(error).__name__
            problems.append(Problem(where, found, f"arguments that {entry['type']} takes"))
    return problems


def _entry_problems(kind: str, entry: Mapping[str, Any], where: str) -> Iterator[Problem]:
    name = entry.get("type")
    if not isinstance(name, str):
        yield Problem(key_path(where, "type"), "is missing", listing(classes(kind)))
        return
    try:
        cls = class_named(kind, name)
    except UnknownClassError as error:
        yield Problem(key_path(where, "type"), error.found, error.legal, error.suggestion)
        return
    yield from _missing_packages(cls.__name__, where)
    yield from _signature_problems(cls, entry, where)


def _signature_problems(cls: type, entry: Mapping[str, Any], where: str) -> Iterator[Problem]:
    legal = options(cls)
    for key, value in entry.items():
        if key in legal or (key != "type" and not takes_any(cls)):
            yield from _argument_problems(cls.__name__, legal, key, value, key_path(where, key))
    for key, parameter in legal.items():
        if parameter.default is parameter.empty and key not in entry:
            yield Problem(key_path(where, key), "is missing", f"{cls.__name__} needs it")
    for key in out_of_reach(cls):
        found = f"{cls.__name__} needs {key}, which a YAML file cannot hold"
        yield Problem(key_path(where, "type"), found, "a subclass of yours that gives it, as FILE.py:CLASS")


def _missing_packages(name: str, where: str) -> Iterator[Problem]:
    for package in NEEDS.get(name, ()):
        if find_spec(package) is None:
            found = f"{name} needs the package {package}, which is not installed"
            yield Problem(key_path(where, "type"), found, f"pip install {package}, or another class")


def _argument_problems(
    name: str, legal: Mapping[str, inspect.Parameter], key: str, value: Any, where: str
) -> Iterator[Problem]:
    if key not in legal:
        yield Problem(where, f"{name} takes no such argument", listing(legal) or "none", did_you_mean(key, legal))
    elif (nested := nested_kind(legal[key])) and value is not None:
        if isinstance(value, str | dict):
            yield from _entry_problems(nested, as_entry(value), where)
        else:
            yield Problem(where, f"{show(value)} is not a {nested}", f"type: CLASS, and arguments of that {nested}")
    elif not nested and not fits(value, str(legal[key].annotation)):
        yield Problem(where, f"{show(value)} does not fit", in_words(str(legal[key].annotation)))
    elif (name := without_list(value, str(legal[key].annotation))) is not None:
        yield Problem(key_path(where, name), f"{show(value[name])} is not a list of values", "a list of values")
