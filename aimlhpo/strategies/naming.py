"""From a `type` to the class that it names: of Optuna, of an installed package, of a file, or from OptunaHub."""

from __future__ import annotations

import inspect

import optuna
import optuna.terminator
from optuna.samplers import nsgaii

from aimlhpo.strategies import hub, imported
from aimlhpo.strategies.catalogue import classes
from aimlhpo.strategies.errors import UnknownClassError
from aimlhpo.suggestions import did_you_mean, listing, show

OTHER_FORMS = "PACKAGE.MODULE.CLASS, FILE.py:CLASS, optunahub/PACKAGE"
_BASES: dict[str, type] = {
    "sampler": optuna.samplers.BaseSampler,
    "pruner": optuna.pruners.BasePruner,
    "crossover": nsgaii.BaseCrossover,
    "mutation": nsgaii.BaseMutation,
    "terminator": optuna.terminator.BaseTerminator,
    "improvement evaluator": optuna.terminator.BaseImprovementEvaluator,
    "error evaluator": optuna.terminator.BaseErrorEvaluator,
}


def class_named(kind: str, name: str) -> type:
    """The class that a `type` names; for the kinds see `classes`. Raises UnknownClassError."""
    if name in classes(kind):
        return classes(kind)[name]
    if name.startswith(hub.PREFIX):
        return _checked(kind, name, hub.load(name, _BASES[kind]))
    if ".py" in name or ":" in name:
        return _checked(kind, name, imported.from_file(name, _BASES[kind]))
    if "." in name:
        return _checked(kind, name, imported.from_package(name, _BASES[kind]))
    raise _not_of_optuna(kind, name)


def _not_of_optuna(kind: str, name: str) -> UnknownClassError:
    known = classes(kind)
    near = did_you_mean(name, known) or did_you_mean(f"{name}{kind}", known)
    if "/" in name:
        near = f"{hub.PREFIX}{name}"
    return UnknownClassError(f"{show(name)} is not a {kind} of Optuna", f"{listing(known)}; {OTHER_FORMS}", near)


def _checked(kind: str, name: str, cls: object) -> type:
    base = _BASES[kind]
    legal = f"a subclass of {base.__module__.partition('.')[0]}'s {base.__name__}"
    if not isinstance(cls, type) or not issubclass(cls, base):
        raise UnknownClassError(f"{show(name)} is not a {kind}", legal)
    if inspect.isabstract(cls):
        missing = listing(sorted(getattr(cls, "__abstractmethods__", ())))
        raise UnknownClassError(f"{show(name)} lacks the methods {missing}", f"{legal} with all of its methods")
    return cls
