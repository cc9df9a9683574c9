"""Samplers and pruners by their class name in Optuna, with every keyword argument checked against its signature."""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Iterator, Mapping
from importlib.util import find_spec
from typing import Any, Protocol

import numpy as np
import optuna
from optuna.exceptions import ExperimentalWarning
from optuna.samplers import nsgaii
from optuna.samplers._lazy_random_state import LazyRandomState

from aimlhpo.errors import ConfigError, Problem
from aimlhpo.suggestions import did_you_mean, key_path, listing, show

NEEDS = {
    "CmaEsSampler": ("cmaes",),
    "GPSampler": ("torch", "scipy"),
    "QMCSampler": ("scipy",),
    "WilcoxonPruner": ("scipy",),
}
_BASES = {"BaseSampler": "sampler", "BasePruner": "pruner", "BaseCrossover": "crossover", "BaseMutation": "mutation"}
_FROM_CODE = ("Callable", "FrozenTrial")  # arguments that a YAML file cannot hold
_WITHOUT_EFFECT = ("restart_strategy", "inc_popsize")  # Optuna 5 takes and ignores them
_TYPES: dict[str, tuple[type, ...]] = {
    "int": (int,), "float": (int, float), "bool": (bool,), "str": (str,), "None": (type(None),),
    "dict": (dict,), "Mapping": (dict,), "Sequence": (list,), "list": (list,), "np": (list,),
}  # fmt: skip


class Strategy(Protocol):
    """A class name and its keyword arguments, as the configuration holds them."""

    @property
    def type(self) -> str: ...

    @property
    def arguments(self) -> dict[str, Any]: ...


def classes(kind: str) -> dict[str, type]:
    """What can be named as `type`: kind is sampler, pruner, crossover or mutation."""
    module = {"sampler": optuna.samplers, "pruner": optuna.pruners}.get(kind, nsgaii)
    ending = kind.capitalize()
    names = (name for name in module.__all__ if name.endswith(ending) and not name.startswith("Base"))
    return {name: getattr(module, name) for name in names}


def options(cls: type) -> dict[str, inspect.Parameter]:
    """The keyword arguments that a YAML file can give to a class."""
    parameters = inspect.signature(cls).parameters
    return {
        name: parameter
        for name, parameter in parameters.items()
        if not any(word in str(parameter.annotation) for word in _FROM_CODE) and name not in _WITHOUT_EFFECT
    }


def make_sampler(section: Strategy | None, seed: int | None) -> optuna.samplers.BaseSampler:
    """The sampler of the study; without a section, Optuna's default. Raises ConfigError."""
    if section is None:
        return optuna.samplers.TPESampler(seed=seed)
    sampler = _checked("sampler", section, seed)
    assert isinstance(sampler, optuna.samplers.BaseSampler)
    return sampler


def make_pruner(section: Strategy | None) -> optuna.pruners.BasePruner:
    """The pruner of the study; without a section, Optuna's default. Raises ConfigError."""
    if section is None:
        return optuna.pruners.MedianPruner()
    pruner = _checked("pruner", section, None)
    assert isinstance(pruner, optuna.pruners.BasePruner)
    return pruner


def check_strategy(kind: str, section: Strategy | None) -> list[Problem]:
    """What is wrong with a sampler or pruner; nothing where there is none."""
    if section is None:
        return []
    return strategy_problems(kind, {"type": section.type, **section.arguments}, key_path("optuna", kind))


def strategy_problems(kind: str, entry: Mapping[str, Any], where: str) -> list[Problem]:
    """What is wrong with a strategy given as a mapping, nested ones included."""
    problems = list(_entry_problems(kind, entry, where))
    if not problems:
        try:
            _build(kind, entry, None)
        except (ValueError, TypeError, ImportError, ArithmeticError, LookupError, AttributeError) as error:
            problems.append(Problem(where, " ".join(str(error).split()), f"arguments that {entry['type']} takes"))
    return problems


def _checked(kind: str, section: Strategy, seed: int | None) -> Any:
    problems = check_strategy(kind, section)
    if problems:
        raise ConfigError(problems)
    return _build(kind, {"type": section.type, **section.arguments}, seed)


def _build(kind: str, entry: Mapping[str, Any], seed: int | None) -> Any:
    cls = classes(kind)[entry["type"]]
    known = options(cls)
    arguments = {key: _argument(known[key], value, seed) for key, value in entry.items() if key != "type"}
    if "seed" in known:
        arguments.setdefault("seed", seed)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ExperimentalWarning)
        warnings.simplefilter("ignore", FutureWarning)  # for arguments that a later Optuna will refuse
        return cls(**arguments)


def _argument(parameter: inspect.Parameter, value: Any, seed: int | None) -> Any:
    nested = _nested_kind(parameter)
    if nested and value is not None:
        return _build(nested, _as_entry(value), seed)
    return np.asarray(value) if "np.ndarray" in str(parameter.annotation) and value is not None else value


def _nested_kind(parameter: inspect.Parameter) -> str | None:
    return next((kind for base, kind in _BASES.items() if base in str(parameter.annotation)), None)


def _as_entry(value: Any) -> Any:
    return {"type": value} if isinstance(value, str) else value


def _entry_problems(kind: str, entry: Mapping[str, Any], where: str) -> Iterator[Problem]:
    known = classes(kind)
    name = entry.get("type")
    if not isinstance(name, str) or name not in known:
        found = "is missing" if name is None else f"{show(name)} is not a {kind} of Optuna"
        near = did_you_mean(name, known) or did_you_mean(f"{name}{kind}", known)
        yield Problem(key_path(where, "type"), found, listing(known), near)
        return
    yield from _missing_packages(name, where)
    legal = options(known[name])
    for key, value in entry.items():
        if key != "type":
            yield from _argument_problems(name, legal, key, value, key_path(where, key))
    for key, parameter in legal.items():
        if parameter.default is parameter.empty and key not in entry:
            yield Problem(key_path(where, key), "is missing", f"{name} needs it")


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
    elif (nested := _nested_kind(legal[key])) and value is not None:
        if isinstance(value, str | dict):
            yield from _entry_problems(nested, _as_entry(value), where)
        else:
            yield Problem(where, f"{show(value)} is not a {nested}", f"type: CLASS, and arguments of that {nested}")
    elif not nested and not _fits(value, str(legal[key].annotation)):
        yield Problem(where, f"{show(value)} does not fit", _readable(str(legal[key].annotation)))


def _fits(value: Any, annotation: str) -> bool:
    """Whether a YAML value is of a type that the annotation names; unknown types are left to the class."""
    names = _names(annotation)
    if any(name not in _TYPES for name in names):
        return True
    if isinstance(value, bool):
        return "bool" in names
    return any(isinstance(value, kind) for name in names for kind in _TYPES[name])


def _names(annotation: str) -> list[str]:
    """The outermost type names of an annotation like `int | Sequence[float] | None`."""
    outer, depth = "", 0
    for char in annotation.removeprefix("<class '").removesuffix("'>").strip("'"):
        depth += (char == "[") - (char == "]")
        outer += char if depth == 0 and char != "]" else ""
    return [part.strip().split(".")[0] for part in outer.split("|")]


def _readable(annotation: str) -> str:
    words = {"int": "a whole number", "float": "a number", "bool": "true or false", "str": "text", "None": "null"}
    words |= dict.fromkeys(("dict", "Mapping"), "a mapping") | dict.fromkeys(("Sequence", "list", "np"), "a list")
    return " or ".join(words.get(name, name) for name in _names(annotation))


def reseed(sampler: optuna.samplers.BaseSampler, seed: int) -> None:
    """Seed every random state inside a sampler, nested samplers included, so that `seed` decides what it draws next."""
    for index, state in enumerate(_random_states(sampler, set())):
        word = np.random.SeedSequence([seed, index]).generate_state(1)[0]
        (state.rng if isinstance(state, LazyRandomState) else state).seed(int(word))


def _random_states(value: Any, seen: set[int]) -> Iterator[LazyRandomState | np.random.RandomState]:
    """The random states below an object, each once, in the order of its attributes."""
    if id(value) in seen:
        return
    seen.add(id(value))
    if isinstance(value, LazyRandomState | np.random.RandomState):
        yield value
        return
    for part in _parts(value):
        yield from _random_states(part, seen)


def _parts(value: Any) -> list[Any]:
    if isinstance(value, dict):
        return list(value.values())
    if isinstance(value, list | tuple):
        return list(value)
    ours = isinstance(value, optuna.samplers.BaseSampler) or type(value).__module__.startswith("optuna.samplers")
    return list(vars(value).values()) if ours and hasattr(value, "__dict__") else []
