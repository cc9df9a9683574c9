"""Which classes of Optuna a YAML file can name, and the keyword arguments that each takes."""

from __future__ import annotations

import inspect

import optuna
from optuna.samplers import nsgaii

NEEDS = {
    "CmaEsSampler": ("cmaes",),
    "GPSampler": ("torch", "scipy"),
    "QMCSampler": ("scipy",),
    "WilcoxonPruner": ("scipy",),
}
BASES = {"BaseSampler": "sampler", "BasePruner": "pruner", "BaseCrossover": "crossover", "BaseMutation": "mutation"}
_FROM_CODE = ("Callable", "FrozenTrial")  # arguments that a YAML file cannot hold
_WITHOUT_EFFECT = ("restart_strategy", "inc_popsize")  # Optuna 5 takes and ignores them


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


def nested_kind(parameter: inspect.Parameter) -> str | None:
    """What an argument holds where it is a strategy itself."""
    return next((kind for base, kind in BASES.items() if base in str(parameter.annotation)), None)
