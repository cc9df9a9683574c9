"""From a section of the configuration to a sampler, a pruner or a terminator; and the seeds of a sampler's trials.

`check_strategy` finds every problem of a section without a study: an unknown class, wrong arguments, a missing package.
`make_sampler` and `make_pruner` make the object, or raise ConfigError with these problems. A strategy is a sampler, a
pruner, a terminator, or an object that one of these is made of. An entry is a strategy as a mapping: `type`, and the
keyword arguments of the class.

`reseed` seeds a sampler anew for each trial, so that what it draws does not depend on which agent draws it.
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
from aimlhpo.search.registry import NEEDED_PACKAGES, UnknownClassError, class_named, classes, nested_kind, options

DEFAULT_SAMPLER = "TPESampler"
DEFAULT_PRUNER = "MedianPruner"
ARGUMENT_DEFAULTS: dict[str, Any] = {
    # Optuna would warn in every trial; `aimlhpo check` notes it once.
    "warn_independent_sampling": False,
    # Another trial is always running while one is sampled: without this both may get the same values.
    "constant_liar": True,
}
"""Arguments that every class which takes them gets where the configuration does not give them."""

_YAML_TYPES: dict[str, tuple[str, tuple[type, ...]]] = {
    "int": ("a whole number", (int,)),
    "float": ("a number", (int, float)),
    "bool": ("true or false", (bool,)),
    "str": ("text", (str,)),
    "None": ("null", (type(None),)),
    "dict": ("a mapping", (dict,)),
    "Mapping": ("a mapping", (dict,)),
    "Sequence": ("a list", (list,)),
    "list": ("a list", (list,)),
    "np": ("a list", (list,)),
}
"""A type in an annotation: in plain English, and as what a YAML file gives for it."""

RandomState = np.random.RandomState | np.random.Generator | random.Random
Encode = Callable[[Mapping[str, Any]], dict[str, Any]]


class Strategy(Protocol):
    """A class name and its keyword arguments, as the configuration holds them."""

    @property
    def type(self) -> str: ...

    @property
    def arguments(self) -> dict[str, Any]: ...


def make_sampler(section: Strategy | None, seed: int | None, encode: Encode = dict) -> optuna.samplers.BaseSampler:
    """The sampler of a study; without a section, DEFAULT_SAMPLER. Raises ConfigError.

    Args:
        section: the configuration's `sampler`.
        seed: given to every class that takes one.
        encode: turns values by parameter name into what the storage holds for them. It is applied to the values in
            `search_space`, `fixed_params` and `x0`, in nested samplers too.
    """
    entry = _checked_entry("sampler", section, DEFAULT_SAMPLER)
    sampler = build_strategy("sampler", _encoded(entry, encode), seed)
    assert isinstance(sampler, optuna.samplers.BaseSampler)
    return sampler


def make_pruner(section: Strategy | None) -> optuna.pruners.BasePruner:
    """The pruner of a study; without a section, DEFAULT_PRUNER. Raises ConfigError."""
    pruner = build_strategy("pruner", _checked_entry("pruner", section, DEFAULT_PRUNER), None)
    assert isinstance(pruner, optuna.pruners.BasePruner)
    return pruner


def _checked_entry(kind: str, section: Strategy | None, default: str) -> dict[str, Any]:
    problems = check_strategy(kind, section)
    if problems:
        raise ConfigError(problems)
    return {"type": default} if section is None else {"type": section.type, **section.arguments}


def build_strategy(kind: str, entry: Mapping[str, Any], seed: int | None) -> Any:
    """An object of the class that a checked entry names, with `seed` wherever a class takes one.

    Raises whatever the class raises.
    """
    cls = class_named(kind, entry["type"])
    known = options(cls)
    arguments = {key: value for key, value in entry.items() if key != "type"}
    for key, value in arguments.items():
        nested = nested_kind(known[key]) if key in known and value is not None else None
        if nested:
            arguments[key] = build_strategy(nested, as_entry(value), seed)
        elif key in known and value is not None and "np.ndarray" in str(known[key].annotation):
            arguments[key] = np.asarray(value)
    defaults = {"seed": seed, **ARGUMENT_DEFAULTS}
    arguments = {key: value for key, value in defaults.items() if key in known} | arguments
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ExperimentalWarning)
        warnings.simplefilter("ignore", FutureWarning)  # for arguments that a later Optuna will refuse
        return cls(**arguments)


def as_entry(value: Any) -> Any:
    """A nested strategy as an entry: it may be given as a mapping, or by its class name alone."""
    return {"type": value} if isinstance(value, str) else value


def _encoded(entry: Mapping[str, Any], encode: Encode) -> dict[str, Any]:
    """A sampler's entry with what the storage holds in place of the user's values, in nested samplers too."""
    encoded: dict[str, Any] = {}
    for key, value in entry.items():
        if not isinstance(value, Mapping):
            encoded[key] = value
        elif key in ("fixed_params", "x0"):
            encoded[key] = encode(value)
        elif key == "search_space":
            encoded[key] = {name: [encode({name: item})[name] for item in items] for name, items in value.items()}
        else:
            encoded[key] = _encoded(value, encode) if "type" in value else value
    return encoded


def check_strategy(kind: str, section: Strategy | None) -> list[Problem]:
    """Every problem of the configuration's sampler, pruner or terminator; none where there is no section."""
    if section is None:
        return []
    return strategy_problems(kind, {"type": section.type, **section.arguments}, key_path("optuna", kind))


def strategy_problems(kind: str, entry: Mapping[str, Any], where: str) -> list[Problem]:
    """Every problem of an entry, nested ones included; `where` is the entry's key path.

    Where the arguments fit the signature, the object is made once, as a class may refuse their values.
    """
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
    """The problems that show without making the object: its class, its packages, and the names of its arguments."""
    name = entry.get("type")
    if not isinstance(name, str):
        yield Problem(key_path(where, "type"), "is missing", listing(classes(kind)))
        return
    try:
        cls = class_named(kind, name)
    except UnknownClassError as error:
        yield Problem(key_path(where, "type"), error.found, error.legal, error.suggestion)
        return
    for package in NEEDED_PACKAGES.get(cls.__name__, ()):
        if find_spec(package) is None:
            found = f"{cls.__name__} needs the package {package}, which is not installed"
            yield Problem(key_path(where, "type"), found, f"pip install {package}, or another class")
    signature, legal = inspect.signature(cls).parameters, options(cls)
    takes_any = any(parameter.kind is parameter.VAR_KEYWORD for parameter in signature.values())
    for key, value in entry.items():
        if key in legal:
            yield from _value_problems(legal[key], value, key_path(where, key))
        elif key != "type" and not takes_any:
            found = f"{cls.__name__} takes no such argument"
            yield Problem(key_path(where, key), found, listing(legal) or "none", did_you_mean(key, legal))
    for key, parameter in signature.items():
        if parameter.default is not parameter.empty or parameter.kind in (
            parameter.VAR_POSITIONAL,
            parameter.VAR_KEYWORD,
        ):
            continue
        if key not in legal:
            found = f"{cls.__name__} needs {key}, which a YAML file cannot hold"
            yield Problem(key_path(where, "type"), found, "a subclass of yours that gives it, as FILE.py:CLASS")
        elif key not in entry:
            yield Problem(key_path(where, key), "is missing", f"{cls.__name__} needs it")


def _value_problems(parameter: inspect.Parameter, value: Any, where: str) -> Iterator[Problem]:
    """What is wrong with the value of an argument: by its annotation, or as a nested strategy."""
    nested = nested_kind(parameter)
    if nested and value is not None:
        if isinstance(value, str | dict):
            yield from _entry_problems(nested, as_entry(value), where)
        else:
            yield Problem(where, f"{show(value)} is not a {nested}", f"type: CLASS, and arguments of that {nested}")
        return
    annotation = str(parameter.annotation)
    names = _outer_types(annotation)
    known = [_YAML_TYPES[name] for name in names if name in _YAML_TYPES]
    # For Python, true and false are whole numbers; in a YAML file they are not.
    fits = "bool" in names if isinstance(value, bool) else any(isinstance(value, kinds) for _, kinds in known)
    if not nested and not fits and len(known) == len(names):  # values of other types are left to the class
        yield Problem(where, f"{show(value)} does not fit", " or ".join(words for words, _ in known))
    elif names == ["Mapping"] and "Sequence[" in annotation and isinstance(value, dict):
        wrong = next((key for key, item in value.items() if not isinstance(item, list)), None)
        if wrong is not None:
            yield Problem(key_path(where, wrong), f"{show(value[wrong])} is not a list of values", "a list of values")


def _outer_types(annotation: str) -> list[str]:
    """The outermost types of an annotation: `int`, `Sequence` and `None` of `int | Sequence[float] | None`."""
    outer, depth = "", 0
    for char in annotation.removeprefix("<class '").removesuffix("'>").strip("'"):
        depth += (char == "[") - (char == "]")
        outer += char if depth == 0 and char != "]" else ""
    return [part.strip().split(".")[0] for part in outer.split("|")]


def reseed(sampler: optuna.samplers.BaseSampler, seed: int) -> None:
    """Seed every random state inside a sampler, nested samplers included, so that `seed` decides what it draws next.

    A sampler whose random states cannot be found reseeds itself, so that agents at least do not draw the same values.
    """
    states = list(_random_states(sampler, type(sampler).__module__.partition(".")[0], set()))
    for index, state in enumerate(states):
        own_seed = int(np.random.SeedSequence([seed, index]).generate_state(1)[0])
        if isinstance(state, np.random.Generator):
            state.bit_generator.state = type(state.bit_generator)(own_seed).state
        else:
            state.seed(own_seed)
    if not states:
        sampler.reseed_rng()


def _random_states(value: Any, package: str, seen: set[int]) -> Iterator[RandomState]:
    """The random states below an object, each once, in the order of its attributes.

    The search goes through dictionaries, lists, samplers, the parts of Optuna's samplers, and the objects of `package`,
    where the sampler itself comes from another package than Optuna.
    """
    if id(value) in seen:
        return
    seen.add(id(value))
    if isinstance(value, RandomState):
        yield value
        return
    module = type(value).__module__
    of_optuna = module.startswith("optuna.samplers")
    parts: list[Any] = []
    if isinstance(value, dict):
        parts = list(value.values())
    elif isinstance(value, list | tuple):
        parts = list(value)
    elif of_optuna and isinstance(getattr(value, "rng", None), np.random.RandomState):
        parts = [value.rng]  # Optuna makes this random state when it is first asked for
    elif hasattr(value, "__dict__"):
        own = package not in ("optuna", "aimlhpo", "builtins") and module.partition(".")[0] == package
        if of_optuna or own or isinstance(value, optuna.samplers.BaseSampler):
            parts = list(vars(value).values())
    for part in parts:
        yield from _random_states(part, package, seen)
