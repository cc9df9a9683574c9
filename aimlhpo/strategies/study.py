"""The study's sampler and pruner, from their sections in the configuration."""

from __future__ import annotations

from typing import Any, Protocol

import optuna

from aimlhpo.errors import ConfigError, Problem
from aimlhpo.strategies.building import build
from aimlhpo.strategies.problems import strategy_problems
from aimlhpo.suggestions import key_path


class Strategy(Protocol):
    """A class name and its keyword arguments, as the configuration holds them."""

    @property
    def type(self) -> str: ...

    @property
    def arguments(self) -> dict[str, Any]: ...


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


def _checked(kind: str, section: Strategy, seed: int | None) -> Any:
    problems = check_strategy(kind, section)
    if problems:
        raise ConfigError(problems)
    return build(kind, {"type": section.type, **section.arguments}, seed)
