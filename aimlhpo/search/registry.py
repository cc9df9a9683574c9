"""Why a `type` names no class that can be used.
Whether a value from a YAML file is of the type that a signature names.
Which classes of Optuna a YAML file can name, and the keyword arguments that each takes.
Strategies of the user's own: a class of an installed package, or of a Python file.
Strategies from OptunaHub, by package name: `optunahub/samplers/auto_sampler`.

OptunaHub keeps what it has downloaded (~/.cache/optunahub, or OPTUNAHUB_CACHE_HOME): a check on a login node loads
the package once, and agents on nodes without a network find it there.
From a `type` to the class that it names: of Optuna, of an installed package, of a file, or from OptunaHub.
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
from typing import Any

import optuna
import optuna.terminator
from optuna.samplers import nsgaii

from aimlhpo.errors import did_you_mean, listing, show
from aimlhpo.objective.base import SourceError, import_file, module_name
from aimlhpo.search.asha import ASHA


class UnknownClassError(Exception):
    """Told as a problem of the configuration: what was found, what is legal, and a guess at what was meant."""

    def __init__(self, found: str, legal: str, suggestion: str | None = None) -> None:
        self.found, self.legal, self.suggestion = found, legal, suggestion
        super().__init__(found)


def in_one_line(error: BaseException) -> str:
    """An exception's name and the first line of what it says."""
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__


_TYPES: dict[str, tuple[type, ...]] = {
    "int": (int,), "float": (int, float), "bool": (bool,), "str": (str,), "None": (type(None),),
    "dict": (dict,), "Mapping": (dict,), "Sequence": (list,), "list": (list,), "np": (list,),
}  # fmt: skip


def fits_annotation(value: Any, annotation: str) -> bool:
    """Whether a YAML value is of a type that the annotation names; unknown types are left to the class."""
    names = outermost(annotation)
    if any(name not in _TYPES for name in names):
        return True
    if isinstance(value, bool):
        return "bool" in names
    return any(isinstance(value, kind) for name in names for kind in _TYPES[name])


def in_words(annotation: str) -> str:
    """The annotation for people: `a whole number or null`."""
    words = {"int": "a whole number", "float": "a number", "bool": "true or false", "str": "text", "None": "null"}
    words |= dict.fromkeys(("dict", "Mapping"), "a mapping") | dict.fromkeys(("Sequence", "list", "np"), "a list")
    return " or ".join(words.get(name, name) for name in outermost(annotation))


def outermost(annotation: str) -> list[str]:
    """The outermost type names of an annotation like `int | Sequence[float] | None`."""
    outer, depth = "", 0
    for char in annotation.removeprefix("<class '").removesuffix("'>").strip("'"):
        depth += (char == "[") - (char == "]")
        outer += char if depth == 0 and char != "]" else ""
    return [part.strip().split(".")[0] for part in outer.split("|")]


def without_list(value: Any, annotation: str) -> Any:
    """The first key of a mapping of lists, as the annotation names one, whose value is no list."""
    mapping_of_lists = outermost(annotation) == ["Mapping"] and "Sequence[" in annotation
    given = value if mapping_of_lists and isinstance(value, dict) else {}
    return next((key for key, item in given.items() if not isinstance(item, list)), None)


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


_FILE = re.compile(r"(?P<file>.+\.py):(?P<name>[^\W\d]\w*)")
_DOTTED = re.compile(r"[^\W\d]\w*(\.[^\W\d]\w*)+")


def class_from_file(text: str, base: type) -> object:
    """What `FILE.py:CLASS` names. Raises UnknownClassError."""
    match = _FILE.fullmatch(text)
    if match is None:
        near = f"{text}:CLASS" if text.endswith(".py") else _without_colon(text)
        raise UnknownClassError(f"{show(text)} names no class of a file", "FILE.py:CLASS", near)
    file = Path(match["file"]).resolve()
    if not file.is_file():
        raise UnknownClassError(f"no such file: {file}", "the path of the Python file that holds the class")
    return attribute(_module_of(file), match["name"], base)


def _without_colon(text: str) -> str | None:
    """What was meant, where the colon stands in the name of a package's class."""
    dotted = text.replace(":", ".")
    return dotted if _DOTTED.fullmatch(dotted) else None


def _module_of(file: Path) -> ModuleType:
    """The file's module, run once in a process."""
    known = sys.modules.get(module_name(file, "strategy"))
    if known is not None:
        return known
    try:
        return import_file(file, "strategy")
    except SourceError as error:
        lines = error.detail.splitlines()
        last = f": {lines[-1]}{_place(lines, file)}" if lines else ""
        raise UnknownClassError(f"{error.message}{last}", "a file that Python can import") from error


def _place(lines: list[str], file: Path) -> str:
    """The deepest line of the file that a traceback names."""
    places = re.findall(rf'File "{re.escape(str(file))}", line (\d+)', "\n".join(lines))
    return f" (line {places[-1]})" if places else ""


def class_from_package(text: str, base: type) -> object:
    """What `PACKAGE.MODULE.CLASS` names. Raises UnknownClassError."""
    if not _DOTTED.fullmatch(text):
        raise UnknownClassError(f"{show(text)} is not an import path", "PACKAGE.MODULE.CLASS")
    path, _, name = text.rpartition(".")
    try:
        module = importlib.import_module(path)
    except (Exception, SystemExit) as error:
        legal = "a module that is installed or on PYTHONPATH; or FILE.py:CLASS"
        raise UnknownClassError(f"importing {path} failed: {in_one_line(error)}", legal) from error
    return attribute(module, name, base)


def attribute(module: ModuleType, name: str, base: type) -> object:
    """What the module holds under the name. Raises UnknownClassError, with the strategies that it does hold."""
    if hasattr(module, name):
        return getattr(module, name)
    held = [key for key, value in vars(module).items() if is_own(value, base, module)]
    where = getattr(module, "__file__", None) or module.__name__
    legal = listing(held) or f"a module with a subclass of {base.__name__}"
    near = did_you_mean(name, held) or did_you_mean(name + base.__name__.removeprefix("Base"), held)
    raise UnknownClassError(f"{where} has no {name}", legal, near)


def is_own(value: object, base: type, module: ModuleType) -> bool:
    """Whether a value is a strategy that the module, or one of its own, defines."""
    if not isinstance(value, type) or not issubclass(value, base) or value is base:
        return False
    return value.__module__.startswith(module.__name__)


HUB_PREFIX = "optunahub/"
HUB_FORM = "optunahub/PACKAGE, as in optunahub/samplers/auto_sampler; with @TAG or :CLASS behind it where needed"
_NAME = re.compile(
    r"optunahub/(?P<package>[\w-]+(/[\w-]+)*)(@(?P<ref>[\w-][\w.-]*))?(:(?P<name>[^\W\d]\w*))?", re.ASCII
)


def load_from_hub(text: str, base: type) -> object:
    """What `optunahub/PACKAGE[@TAG][:CLASS]` names. Raises UnknownClassError."""
    match = _NAME.fullmatch(text)
    if match is None:
        raise UnknownClassError(f"{show(text)} is not a package of OptunaHub", HUB_FORM)
    module = _module(match["package"], match["ref"] or "main")
    return attribute(module, match["name"], base) if match["name"] else _only_class(text, module, base)


@cache
def _module(package: str, ref: str) -> ModuleType:
    """The package, downloaded where it is not there yet."""
    if find_spec("optunahub") is None:
        raise UnknownClassError("the package optunahub is not installed", "pip install 'aimlhpo[optunahub]'")
    try:
        import optunahub

        module: ModuleType = optunahub.load_module(package, ref=ref)
    except ModuleNotFoundError as error:
        legal = f"pip install {error.name}, or what the package's page on hub.optuna.org asks for"
        raise UnknownClassError(f"{package} needs the package {error.name}", legal) from error
    except FileNotFoundError as error:
        raise UnknownClassError(f"OptunaHub has no package {package}", HUB_FORM) from error
    except Exception as error:  # of git, of GitHub, of the package: nothing that is our own
        legal = (
            "a machine that reaches github.com, for the first time: then the package lies in "
            "~/.cache/optunahub (or OPTUNAHUB_CACHE_HOME) for the nodes, too"
        )
        raise UnknownClassError(f"{package} cannot be loaded from OptunaHub: {in_one_line(error)}", legal) from error
    return module


def _only_class(text: str, module: ModuleType, base: type) -> object:
    """The one strategy that the package offers."""
    offered = getattr(module, "__all__", None) or list(vars(module))
    held = [name for name in offered if is_own(getattr(module, name, None), base, module)]
    if len(held) == 1:
        return getattr(module, held[0])
    if held:
        raise UnknownClassError(f"{show(text)} holds {listing(held)}", "one of them", f"{text}:{held[0]}")
    raise UnknownClassError(f"{show(text)} holds no {base.__name__.removeprefix('Base').lower()}", HUB_FORM)


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
    if name.startswith(HUB_PREFIX):
        return _checked(kind, name, load_from_hub(name, _BASES[kind]))
    if ".py" in name or ":" in name:
        return _checked(kind, name, class_from_file(name, _BASES[kind]))
    if "." in name:
        return _checked(kind, name, class_from_package(name, _BASES[kind]))
    raise _not_of_optuna(kind, name)


def _not_of_optuna(kind: str, name: str) -> UnknownClassError:
    known = classes(kind)
    near = did_you_mean(name, known) or did_you_mean(f"{name}{kind}", known)
    if "/" in name:
        near = f"{HUB_PREFIX}{name}"
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
