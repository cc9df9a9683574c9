"""The study's sampler and pruner, from their sections in the configuration."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Protocol

import optuna

from aimlhpo.errors import ConfigError, Problem
from aimlhpo.strategies.building import build
from aimlhpo.strategies.problems import strategy_problems
from aimlhpo.suggestions import key_path

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
    sampler = build("sampler", encoded(entry, encode), seed)
    assert isinstance(sampler, optuna.samplers.BaseSampler)
    return sampler


def make_pruner(section: Strategy | None) -> optuna.pruners.BasePruner:
    """The pruner of the study; without a section, Optuna's default. Raises ConfigError."""
    if section is None:
        return optuna.pruners.MedianPruner()
    problems = check_strategy("pruner", section)
    if problems:
        raise ConfigError(problems)
    pruner = build("pruner", {"type": section.type, **section.arguments}, None)
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
