"""From a section of the configuration to a sampler, a pruner or a terminator.

A strategy is a sampler, a pruner, a terminator, or an object that one of these is made of. An entry is a strategy as a
mapping: `type`, and the keyword arguments of the class. A `type` is one of four forms:

    TPESampler                             a class of Optuna, or one of aimlhpo's own, as ASHA is
    package.module.Class                   a class of an installed package
    file.py:Class                          a class of the user's own Python file
    optunahub/package[@tag][:Class]        a class from OptunaHub

`class_named` returns the class, or raises UnknownClassError with what is legal. `options` lists the keyword arguments
that a YAML file can give to it. A class that is made of others (a pruner inside a pruner, a crossover inside a sampler)
takes them as arguments; `nested_kind` says which arguments these are.

`check_strategy` finds every problem of a section without a study: an unknown class, wrong arguments, a missing package.
`make_sampler` and `make_pruner` make the object, or raise ConfigError with these problems.

What a study is searched with where its configuration names no sampler or pruner, or says `auto`, is chosen once, when
the study is made (`choose`), and kept in the study; a study that has none was made by a version that knew no choice,
and goes on with what it had. `docs/search.md` has the measurements behind it. `strategies` gives what a study has.

All of it runs wherever a configuration is checked or a sampler is made: in the command, in an agent, and in an agent's
sampling process.
"""

from __future__ import annotations

import importlib
import inspect
import re
import sys
import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

import numpy as np
import optuna
import optuna.terminator
from optuna.exceptions import ExperimentalWarning
from optuna.samplers import nsgaii

from aimlhpo.config.fields import AUTO
from aimlhpo.config.optuna_section import PrunerSection, StrategySection
from aimlhpo.errors import ConfigError, ObjectiveError, Problem, did_you_mean, key_path, listing, show
from aimlhpo.objective.base import import_file, module_name
from aimlhpo.search.rung_samplers import RungGPSampler, RungSampler, RungTPESampler
from aimlhpo.search.rungs import ASHA
from aimlhpo.space.search_space import grid_of
from aimlhpo.storage.attributes import set_study_attribute, study_attributes
from aimlhpo.storage.open import disconnect_storage, holds_studies
from aimlhpo.storage.study import find_study

# --- classes ---

if TYPE_CHECKING:
    from aimlhpo.config.schema import Config

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

OWN_CLASSES: dict[str, dict[str, type]] = {
    "sampler": {"RungGPSampler": RungGPSampler, "RungSampler": RungSampler, "RungTPESampler": RungTPESampler},
    "pruner": {"ASHA": ASHA},
}
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
    except ObjectiveError as error:
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


# --- objects ---


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

Encode = Callable[[Mapping[str, Any]], dict[str, Any]]


def make_sampler(section: StrategySection, seed: int | None, encode: Encode = dict) -> optuna.samplers.BaseSampler:
    """The sampler of a study. Raises ConfigError.

    Args:
        section: the configuration's `sampler`, or what was chosen for it (`strategies`).
        seed: given to every class that takes one.
        encode: turns values by parameter name into what the storage holds for them. It is applied to the values in
            `search_space`, `fixed_params` and `x0`, in nested samplers too.
    """
    entry = _checked_entry("sampler", section)
    sampler: optuna.samplers.BaseSampler = build_strategy("sampler", _encoded(entry, encode), seed)
    return sampler


def make_pruner(section: StrategySection) -> optuna.pruners.BasePruner:
    """The pruner of a study, from its section or what was chosen for it. Raises ConfigError."""
    entry = _checked_entry("pruner", section)
    pruner: optuna.pruners.BasePruner = build_strategy("pruner", entry, None)
    return pruner


def _checked_entry(kind: str, section: StrategySection) -> dict[str, Any]:
    problems = check_strategy(kind, section)
    if problems:
        raise ConfigError(problems)
    return {"type": section.type, **section.arguments}


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


def check_strategy(kind: str, section: StrategySection | None) -> list[Problem]:
    """Every problem of the configuration's sampler, pruner or terminator; none where there is no section."""
    if section is None:
        return []
    return strategy_problems(kind, {"type": section.type, **section.arguments}, key_path("optuna", kind))


def strategy_problems(kind: str, entry: Mapping[str, Any], where: str) -> list[Problem]:
    """Every problem of an entry, nested ones included; `where` is the entry's key path.

    Where the arguments fit the signature, the object is made once, as a class may refuse their values. What is chosen
    for the study is no class, and takes no arguments.
    """
    if kind in OWN_CLASSES and entry.get("type") == AUTO:
        legal = f"none; or the class that it is for, as type: {next(iter(OWN_CLASSES[kind]))}"
        return [Problem(key_path(where, key), "auto takes no arguments", legal) for key in entry if key != "type"]
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


# --- what is chosen where nothing is named ---


CHOSEN = "aimlhpo:chosen"
"""The study's attribute that keeps the choice: a sampler and a pruner, each as in a configuration."""

_FEW_TRIALS = 50
_FACTOR_OF_FEW = 2
"""ASHA's reduction factor in a study of no more trials than that: one in three would leave too few whole ones."""

_OPTUNAS = {"sampler": {"type": "TPESampler"}, "pruner": {"type": "MedianPruner"}}
_IN_WORDS = {
    "RungGPSampler": "a Gaussian process on all rungs and TPE by turns",
    "RungSampler": "TPE on the highest rung with enough results; a Gaussian process where nothing is reported",
    "RungTPESampler": "TPE on the highest rung with enough results",
    "TPESampler": "TPE on complete and pruned trials",
    "ASHA": "the best {} goes on at each rung",
    "MedianPruner": "what is worse than the median ends",
    "NopPruner": "nothing is pruned",
}


@dataclass(frozen=True)
class Strategies:
    """A study's sampler and pruner as sections of a configuration, and which of them were not named there."""

    sampler: StrategySection
    pruner: StrategySection
    automatic: tuple[str, ...] = ()

    def in_words(self, kind: str) -> str:
        """One of them for people; kind is "sampler" or "pruner"."""
        section: StrategySection = self.sampler if kind == "sampler" else self.pruner
        if kind not in self.automatic:
            return section.type
        share = "half" if section.arguments.get("reduction_factor") == _FACTOR_OF_FEW else "third"
        return f"auto: {section.type} ({_IN_WORDS[section.type].format(share)})"

    def __str__(self) -> str:
        """In one line, with its reasons where they were chosen."""
        return "; ".join(f"{kind} {self.in_words(kind)}" for kind in ("sampler", "pruner"))


def strategies(config: Config, study: optuna.Study | None = None) -> Strategies:
    """The sampler and the pruner of a study; without one, of a new study with this configuration."""
    chosen = choose(config) if study is None else study_attributes(study).get(CHOSEN, _OPTUNAS)
    sampler, pruner, automatic = config.optuna.sampler, config.optuna.pruner, []
    if sampler is None or sampler.type == AUTO:
        sampler = StrategySection(**chosen["sampler"])
        automatic.append("sampler")
    if pruner is None or pruner.type == AUTO:
        pruner = PrunerSection(**chosen["pruner"])
        automatic.append("pruner")
    return Strategies(sampler, pruner, tuple(automatic))


def strategies_now(config: Config) -> Strategies:
    """Those of the study where it exists, otherwise those that it would get. Makes and changes nothing."""
    study = find_study(config) if holds_studies(config.optuna.storage) else None
    if study is None:
        return strategies(config)
    try:
        return strategies(config, study)
    finally:
        disconnect_storage(study._storage)


def keep_choice(study: optuna.Study, config: Config) -> None:
    """Make the choice for a new study. The caller holds the ledger's lock."""
    if CHOSEN not in study_attributes(study) and not study._storage.get_n_trials(study._study_id):
        set_study_attribute(study, CHOSEN, choose(config))


def choose(config: Config) -> dict[str, dict[str, Any]]:
    """The sampler and the pruner for a new study, as in a configuration."""
    section = config.optuna
    if section.reported_metric is None:  # several metrics, and none to compare trials by
        return {"sampler": _OPTUNAS["sampler"], "pruner": {"type": "NopPruner"}}
    if grid_of(config.space) is not None or len(section.metric) > 1 or section.constraints:
        # A grid is to be seen whole; values at a rung say nothing about other metrics.
        return _OPTUNAS
    if section.sampler is not None and section.sampler.type != AUTO:
        # Samplers of Optuna rank pruned trials by the step they reached: pruning early and often misleads them.
        return _OPTUNAS
    conditional = any(d.type != "multiply" for p in config.space.parameters for d in p.dependencies)
    sampler = {"type": "RungSampler", "group": True} if conditional else {"type": "RungGPSampler"}
    few = {"reduction_factor": _FACTOR_OF_FEW} if section.n_trials <= _FEW_TRIALS else {}
    return {"sampler": sampler, "pruner": {"type": "ASHA", **few}}
