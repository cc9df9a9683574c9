"""Which class the `type` of a sampler, a pruner or a terminator names, and the keyword arguments that the class takes.

A `type` is one of four forms:

    TPESampler                             a class of Optuna, or ASHA, which is aimlhpo's own
    package.module.Class                   a class of an installed package
    file.py:Class                          a class of the user's own Python file
    optunahub/package[@tag][:Class]        a class from OptunaHub

`class_named` returns the class, or raises UnknownClassError with what is legal. `options` lists the keyword arguments
that a YAML file can give to it. A class that is made of others (a pruner inside a pruner, a crossover inside a sampler)
takes them as arguments; `nested_kind` says which arguments these are.

All of it runs wherever a configuration is checked or a sampler is made: in the command, in an agent, and in an agent's
sampling process.
"""

from __future__ import annotations

import importlib
import inspect
import re
import sys
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType

import optuna
import optuna.terminator
from optuna.samplers import nsgaii

from aimlhpo.errors import did_you_mean, listing, show
from aimlhpo.objective.base import SourceError, import_file, module_name
from aimlhpo.search.asha import ASHA

BASE_CLASSES: dict[str, type] = {
    "sampler": optuna.samplers.BaseSampler,
    "pruner": optuna.pruners.BasePruner,
    "crossover": nsgaii.BaseCrossover,
    "mutation": nsgaii.BaseMutation,
    "improvement evaluator": optuna.terminator.BaseImprovementEvaluator,
    "error evaluator": optuna.terminator.BaseErrorEvaluator,
    "terminator": optuna.terminator.BaseTerminator,
}
"""The kinds of classes that a configuration can name, and what a class of each kind inherits from."""

OWN_CLASSES: dict[str, dict[str, type]] = {"pruner": {"ASHA": ASHA}}
"""aimlhpo's own classes, by kind and by the name that a configuration gives them."""

NEEDED_PACKAGES = {
    "CmaEsSampler": ("cmaes",),
    "GPSampler": ("torch", "scipy"),
    "QMCSampler": ("scipy",),
    "WilcoxonPruner": ("scipy",),
    "RegretBoundEvaluator": ("torch", "scipy"),
    "EMMREvaluator": ("torch", "scipy"),
}
"""Packages that a class of Optuna imports only when it is used."""

_FROM_TERMINATOR = {
    "terminator": ("Terminator",),
    "improvement evaluator": ("BestValueStagnationEvaluator", "EMMREvaluator", "RegretBoundEvaluator"),
    # Not CrossValidationErrorEvaluator: it reads scores that the objective would have to write to the storage itself.
    "error evaluator": ("StaticErrorEvaluator", "MedianErrorEvaluator"),
}
_FROM_CODE = ("Callable", "FrozenTrial")  # types of arguments that a YAML file cannot hold
_WITHOUT_EFFECT = ("restart_strategy", "inc_popsize")  # Optuna 5 takes these arguments and ignores them
_FILE_FORM = re.compile(r"(?P<file>.+\.py):(?P<name>[^\W\d]\w*)")
_IMPORT_PATH = re.compile(r"[^\W\d]\w*(\.[^\W\d]\w*)+")
_HUB_PREFIX = "optunahub/"
_HUB_FORM = re.compile(
    r"optunahub/(?P<package>[\w-]+(/[\w-]+)*)(@(?P<ref>[\w-][\w.-]*))?(:(?P<name>[^\W\d]\w*))?", re.ASCII
)
_HUB_LEGAL = "optunahub/PACKAGE, as in optunahub/samplers/auto_sampler; with @TAG or :CLASS behind it where needed"
_OTHER_FORMS = "PACKAGE.MODULE.CLASS, FILE.py:CLASS, optunahub/PACKAGE"


class UnknownClassError(Exception):
    """A `type` that names no usable class: what was found, what is legal, and a guess at what was meant."""

    def __init__(self, found: str, legal: str, suggestion: str | None = None) -> None:
        self.found, self.legal, self.suggestion = found, legal, suggestion
        super().__init__(found)


def classes(kind: str) -> dict[str, type]:
    """The classes of Optuna, and aimlhpo's own, that a configuration can name as a `kind` (a key of BASE_CLASSES)."""
    if kind in _FROM_TERMINATOR:
        return {name: getattr(optuna.terminator, name) for name in _FROM_TERMINATOR[kind]}
    module = {"sampler": optuna.samplers, "pruner": optuna.pruners}.get(kind, nsgaii)
    suffix = kind.capitalize()
    names = (name for name in module.__all__ if name.endswith(suffix) and not name.startswith("Base"))
    return OWN_CLASSES.get(kind, {}) | {name: getattr(module, name) for name in names}


def class_named(kind: str, name: str) -> type:
    """The class that a `type` names, in any of its forms; `kind` is a key of BASE_CLASSES.

    Raises UnknownClassError where there is no such class, where it is of another kind, or where it is abstract.
    """
    known, base = classes(kind), BASE_CLASSES[kind]
    if name in known:
        return known[name]
    if name.startswith(_HUB_PREFIX):
        cls = _class_from_hub(name, base)
    elif ".py" in name or ":" in name:
        cls = _class_from_file(name, base)
    elif "." in name:
        cls = _class_from_package(name, base)
    else:
        near = did_you_mean(name, known) or did_you_mean(f"{name}{kind}", known)
        if "/" in name:
            near = f"{_HUB_PREFIX}{name}"
        raise UnknownClassError(f"{show(name)} is not a {kind} of Optuna", f"{listing(known)}; {_OTHER_FORMS}", near)
    legal = f"a subclass of {base.__module__.partition('.')[0]}'s {base.__name__}"
    if not isinstance(cls, type) or not issubclass(cls, base):
        raise UnknownClassError(f"{show(name)} is not a {kind}", legal)
    if inspect.isabstract(cls):
        missing = listing(sorted(getattr(cls, "__abstractmethods__", ())))
        raise UnknownClassError(f"{show(name)} lacks the methods {missing}", f"{legal} with all of its methods")
    return cls


def options(cls: type) -> dict[str, inspect.Parameter]:
    """The keyword arguments of a class that a YAML file can give."""
    return {
        name: parameter
        for name, parameter in inspect.signature(cls).parameters.items()
        if parameter.kind in (parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY)
        and not any(word in str(parameter.annotation) for word in _FROM_CODE)
        and name not in _WITHOUT_EFFECT
    }


def nested_kind(parameter: inspect.Parameter) -> str | None:
    """The kind of class that an argument holds: by its annotation or, without one, by its name; None for others."""
    if parameter.annotation is parameter.empty:
        return next((kind for kind in BASE_CLASSES if parameter.name.endswith(f"_{kind}")), None)
    annotation = str(parameter.annotation)
    return next((kind for kind, base in BASE_CLASSES.items() if base.__name__ in annotation), None)


def in_one_line(error: BaseException) -> str:
    """An exception's type and the first line of its message."""
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__


def _class_from_file(text: str, base: type) -> object:
    """What `FILE.py:CLASS` names. The file is run once in a process."""
    match = _FILE_FORM.fullmatch(text)
    if match is None:
        with_dots = text.replace(":", ".")  # a colon in an import path: package.module:Class
        near = with_dots if _IMPORT_PATH.fullmatch(with_dots) else None
        near = f"{text}:CLASS" if text.endswith(".py") else near
        raise UnknownClassError(f"{show(text)} names no class of a file", "FILE.py:CLASS", near)
    file = Path(match["file"]).resolve()
    if not file.is_file():
        raise UnknownClassError(f"no such file: {file}", "the path of the Python file that holds the class")
    try:
        module = sys.modules.get(module_name(file, "strategy")) or import_file(file, "strategy")
    except SourceError as error:
        lines = error.detail.splitlines()
        places = re.findall(rf'File "{re.escape(str(file))}", line (\d+)', error.detail)
        place = f" (line {places[-1]})" if places else ""
        last = f": {lines[-1]}{place}" if lines else ""
        raise UnknownClassError(f"{error.message}{last}", "a file that Python can import") from error
    return _attribute(module, match["name"], base)


def _class_from_package(text: str, base: type) -> object:
    """What `PACKAGE.MODULE.CLASS` names."""
    if not _IMPORT_PATH.fullmatch(text):
        raise UnknownClassError(f"{show(text)} is not an import path", "PACKAGE.MODULE.CLASS")
    path, _, name = text.rpartition(".")
    try:
        module = importlib.import_module(path)
    except (Exception, SystemExit) as error:
        legal = "a module that is installed or on PYTHONPATH; or FILE.py:CLASS"
        raise UnknownClassError(f"importing {path} failed: {in_one_line(error)}", legal) from error
    return _attribute(module, name, base)


def _class_from_hub(text: str, base: type) -> object:
    """What `optunahub/PACKAGE[@TAG][:CLASS]` names; without a class, the only one that the package offers."""
    match = _HUB_FORM.fullmatch(text)
    if match is None:
        raise UnknownClassError(f"{show(text)} is not a package of OptunaHub", _HUB_LEGAL)
    module = load_hub_package(match["package"], match["ref"] or "main")
    if match["name"]:
        return _attribute(module, match["name"], base)
    offered = getattr(module, "__all__", None) or list(vars(module))
    held = [name for name in offered if _is_own(getattr(module, name, None), base, module)]
    if len(held) == 1:
        return getattr(module, held[0])
    if held:
        raise UnknownClassError(f"{show(text)} holds {listing(held)}", "one of them", f"{text}:{held[0]}")
    raise UnknownClassError(f"{show(text)} holds no {base.__name__.removeprefix('Base').lower()}", _HUB_LEGAL)


@cache
def load_hub_package(package: str, ref: str) -> ModuleType:
    """A package of OptunaHub as a module, loaded once in a process. Raises UnknownClassError.

    OptunaHub keeps what it has downloaded (~/.cache/optunahub, or OPTUNAHUB_CACHE_HOME). So a check on a login node
    downloads the package once, and agents on nodes without a network find it there.
    """
    if find_spec("optunahub") is None:
        raise UnknownClassError("the package optunahub is not installed", "pip install 'aimlhpo[optunahub]'")
    try:
        import optunahub

        module: ModuleType = optunahub.load_module(package, ref=ref)
    except ModuleNotFoundError as error:
        legal = f"pip install {error.name}, or what the package's page on hub.optuna.org asks for"
        raise UnknownClassError(f"{package} needs the package {error.name}", legal) from error
    except FileNotFoundError as error:
        raise UnknownClassError(f"OptunaHub has no package {package}", _HUB_LEGAL) from error
    except Exception as error:  # from git, from GitHub or from the package, none of which is our own
        legal = (
            "a machine that reaches github.com, for the first time: then the package lies in "
            "~/.cache/optunahub (or OPTUNAHUB_CACHE_HOME) for the nodes, too"
        )
        raise UnknownClassError(f"{package} cannot be loaded from OptunaHub: {in_one_line(error)}", legal) from error
    return module


def _attribute(module: ModuleType, name: str, base: type) -> object:
    """What a module holds under a name; where there is nothing, the error lists the classes that it does hold."""
    if hasattr(module, name):
        return getattr(module, name)
    held = [key for key, value in vars(module).items() if _is_own(value, base, module)]
    where = getattr(module, "__file__", None) or module.__name__
    legal = listing(held) or f"a module with a subclass of {base.__name__}"
    near = did_you_mean(name, held) or did_you_mean(name + base.__name__.removeprefix("Base"), held)
    raise UnknownClassError(f"{where} has no {name}", legal, near)


def _is_own(value: object, base: type, module: ModuleType) -> bool:
    """Whether a value is a subclass of `base` that the module, or a module inside it, defines."""
    if not isinstance(value, type) or not issubclass(value, base) or value is base:
        return False
    return value.__module__.startswith(module.__name__)
