"""Which classes of Optuna a YAML file can name, and the keyword arguments that each takes."""

from __future__ import annotations

import inspect

import optuna
import optuna.terminator
from optuna.samplers import nsgaii

from aimlhpo.asha import ASHA

NEEDS = {
    "CmaEsSampler": ("cmaes",),
    "GPSampler": ("torch", "scipy"),
    "QMCSampler": ("scipy",),
    "WilcoxonPruner": ("scipy",),
    "RegretBoundEvaluator": ("torch", "scipy"),
    "EMMREvaluator": ("torch", "scipy"),
}
BASES = {
    "BaseSampler": "sampler",
    "BasePruner": "pruner",
    "BaseCrossover": "crossover",
    "BaseMutation": "mutation",
    "BaseImprovementEvaluator": "improvement evaluator",
    "BaseErrorEvaluator": "error evaluator",
}
_TERMINATORS = {
    "terminator": ("Terminator",),
    "improvement evaluator": ("BestValueStagnationEvaluator", "EMMREvaluator", "RegretBoundEvaluator"),
    # CrossValidationErrorEvaluator reads scores that an objective would have to write to the storage itself.
    "error evaluator": ("StaticErrorEvaluator", "MedianErrorEvaluator"),
}
_BY_KEYWORD = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
_FROM_CODE = ("Callable", "FrozenTrial")  # arguments that a YAML file cannot hold
_WITHOUT_EFFECT = ("restart_strategy", "inc_popsize")  # Optuna 5 takes and ignores them


def classes(kind: str) -> dict[str, type]:
    """What can be named as `type`: kind is sampler, pruner, terminator, or what these are made of."""
    if kind in _TERMINATORS:
        return {name: getattr(optuna.terminator, name) for name in _TERMINATORS[kind]}
    module = {"sampler": optuna.samplers, "pruner": optuna.pruners}.get(kind, nsgaii)
    ending = kind.capitalize()
    names = (name for name in module.__all__ if name.endswith(ending) and not name.startswith("Base"))
    ours = {"ASHA": ASHA} if kind == "pruner" else {}
    return ours | {name: getattr(module, name) for name in names}


def options(cls: type) -> dict[str, inspect.Parameter]:
    """The keyword arguments that a YAML file can give to a class."""
    return {
        name: parameter
        for name, parameter in inspect.signature(cls).parameters.items()
        if parameter.kind in _BY_KEYWORD and not from_code(parameter) and name not in _WITHOUT_EFFECT
    }


def takes_any(cls: type) -> bool:
    """Whether a class takes keyword arguments that its signature does not name."""
    return any(p.kind is p.VAR_KEYWORD for p in inspect.signature(cls).parameters.values())


def from_code(parameter: inspect.Parameter) -> bool:
    """Whether an argument is one that a YAML file cannot hold: a function, trials."""
    return any(word in str(parameter.annotation) for word in _FROM_CODE)


def out_of_reach(cls: type) -> list[str]:
    """Arguments without a default that a YAML file cannot give."""
    parameters = inspect.signature(cls).parameters.values()
    return [
        p.name
        for p in parameters
        if p.default is p.empty and (p.kind is p.POSITIONAL_ONLY or (p.kind in _BY_KEYWORD and from_code(p)))
    ]


def nested_kind(parameter: inspect.Parameter) -> str | None:
    """What an argument holds where it is a strategy itself."""
    if parameter.annotation is parameter.empty:
        return next((kind for kind in BASES.values() if parameter.name.endswith(f"_{kind}")), None)
    return next((kind for base, kind in BASES.items() if base in str(parameter.annotation)), None)
