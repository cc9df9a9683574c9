"""Makes a strategy from a mapping that was checked before: `type`, and keyword arguments.
What is wrong with a sampler or pruner as a configuration names it.
Seeds the random states inside a sampler anew for each trial.
The study's sampler and pruner, from their sections in the configuration.
"""

from __future__ import annotations

import inspect
import random
import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from importlib.util import find_spec
from typing import Any, Protocol

import numpy as np
import optuna
from optuna.exceptions import ExperimentalWarning

from aimlhpo.errors import ConfigError, Problem, did_you_mean, key_path, listing, show
from aimlhpo.search.registry import (
    NEEDS,
    UnknownClassError,
    class_named,
    classes,
    fits_annotation,
    in_words,
    nested_kind,
    options,
    out_of_reach,
    takes_any,
    without_list,
)
from aimlhpo.storage.optuna_internals import LazyRandomState

_WARNS = "warn_independent_sampling"


def build_strategy(kind: str, entry: Mapping[str, Any], seed: int | None) -> Any:
    """An instance, with `seed` wherever a class takes one. Raises what the class raises."""
    cls = class_named(kind, entry["type"])
    known = options(cls)
    given = {key: value for key, value in entry.items() if key != "type"}
    arguments = {key: _argument(known[key], value, seed) if key in known else value for key, value in given.items()}
    if "seed" in known:
        arguments.setdefault("seed", seed)
    if _WARNS in known:  # in every trial; a check notes it once
        arguments.setdefault(_WARNS, False)
    if "constant_liar" in known:
        # There is always a trial that runs while another is sampled: without this both may be given the same values.
        arguments.setdefault("constant_liar", True)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ExperimentalWarning)
        warnings.simplefilter("ignore", FutureWarning)  # for arguments that a later Optuna will refuse
        return cls(**arguments)


def _argument(parameter: inspect.Parameter, value: Any, seed: int | None) -> Any:
    nested = nested_kind(parameter)
    if nested and value is not None:
        return build_strategy(nested, as_entry(value), seed)
    return np.asarray(value) if "np.ndarray" in str(parameter.annotation) and value is not None else value


def as_entry(value: Any) -> Any:
    """A nested strategy may be a mapping, or its class name alone."""
    return {"type": value} if isinstance(value, str) else value


def strategy_problems(kind: str, entry: Mapping[str, Any], where: str) -> list[Problem]:
    """What is wrong with a strategy given as a mapping, nested ones included."""
    problems = list(_entry_problems(kind, entry, where))
    if not problems:
        try:
            build_strategy(kind, entry, seed=0)
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
    elif not nested and not fits_annotation(value, str(legal[key].annotation)):
        yield Problem(where, f"{show(value)} does not fit", in_words(str(legal[key].annotation)))
    elif (name := without_list(value, str(legal[key].annotation))) is not None:
        yield Problem(key_path(where, name), f"{show(value[name])} is not a list of values", "a list of values")


State = LazyRandomState | np.random.RandomState | np.random.Generator | random.Random
_STATES = (LazyRandomState, np.random.RandomState, np.random.Generator, random.Random)


def reseed(sampler: optuna.samplers.BaseSampler, seed: int) -> None:
    """Seed every random state inside a sampler, nested samplers included, so that `seed` decides what it draws next.

    A sampler whose random states are out of sight reseeds itself, so that agents at least differ.
    """
    states = list(_random_states(sampler, package_of(sampler), set()))
    for index, state in enumerate(states):
        _seed(state, int(np.random.SeedSequence([seed, index]).generate_state(1)[0]))
    if not states:
        sampler.reseed_rng()


def package_of(value: object) -> str:
    """The package whose objects are a sampler's own."""
    return type(value).__module__.partition(".")[0]


def _seed(state: State, word: int) -> None:
    if isinstance(state, np.random.Generator):
        state.bit_generator.state = type(state.bit_generator)(word).state
    else:
        (state.rng if isinstance(state, LazyRandomState) else state).seed(word)


def _random_states(value: Any, package: str, seen: set[int]) -> Iterator[State]:
    """The random states below an object, each once, in the order of its attributes."""
    if id(value) in seen:
        return
    seen.add(id(value))
    if isinstance(value, _STATES):
        yield value
        return
    for part in _parts(value, package):
        yield from _random_states(part, package, seen)


def _parts(value: Any, package: str) -> list[Any]:
    if isinstance(value, dict):
        return list(value.values())
    if isinstance(value, list | tuple):
        return list(value)
    ours = isinstance(value, optuna.samplers.BaseSampler) or type(value).__module__.startswith("optuna.samplers")
    own = package not in ("optuna", "aimlhpo", "builtins") and package_of(value) == package
    return list(vars(value).values()) if (ours or own) and hasattr(value, "__dict__") else []


_VALUES, _LISTS = ("fixed_params", "x0"), ("search_space",)  # arguments that hold parameters' values, or lists of them
Encode = Callable[[Mapping[str, Any]], dict[str, Any]]


class Strategy(Protocol):
    """A class name and its keyword arguments, as the configuration holds them."""

    @property
    def type(self) -> str: ...

    @property
    def arguments(self) -> dict[str, Any]: ...


def make_sampler(section: Strategy | None, seed: int | None, encode: Encode = dict) -> optuna.samplers.BaseSampler:
    """The sampler of the study; without a section, Optuna's default. Raises ConfigError.

    `encode` gives what the storage holds for values by name: those of `search_space`, `fixed_params` and `x0`.
    """
    problems = check_strategy("sampler", section)
    if problems:
        raise ConfigError(problems)
    entry = {"type": section.type, **section.arguments} if section is not None else {"type": "TPESampler"}
    sampler = build_strategy("sampler", encoded(entry, encode), seed)
    assert isinstance(sampler, optuna.samplers.BaseSampler)
    return sampler


def make_pruner(section: Strategy | None) -> optuna.pruners.BasePruner:
    """The pruner of the study; without a section, Optuna's default. Raises ConfigError."""
    if section is None:
        return optuna.pruners.MedianPruner()
    problems = check_strategy("pruner", section)
    if problems:
        raise ConfigError(problems)
    pruner = build_strategy("pruner", {"type": section.type, **section.arguments}, None)
    assert isinstance(pruner, optuna.pruners.BasePruner)
    return pruner


def check_strategy(kind: str, section: Strategy | None) -> list[Problem]:
    """What is wrong with a sampler or pruner; nothing where there is none."""
    if section is None:
        return []
    return strategy_problems(kind, {"type": section.type, **section.arguments}, key_path("optuna", kind))


def encoded(entry: Mapping[str, Any], encode: Encode) -> dict[str, Any]:
    """A sampler's entry with stored values for the user's, in nested samplers too."""
    return {key: _encoded(key, value, encode) for key, value in entry.items()}


def _encoded(key: str, value: Any, encode: Encode) -> Any:
    if not isinstance(value, Mapping):
        return value
    if key in _VALUES:
        return encode(value)
    if key in _LISTS:
        return {name: [encode({name: item})[name] for item in items] for name, items in value.items()}
    return encoded(value, encode) if "type" in value else value
