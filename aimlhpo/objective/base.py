"""Imports a user's Python file by its path.
The class that users subclass, and loading it from their objective.py.
"""

from __future__ import annotations

import copy
import hashlib
import importlib.util
import inspect
import sys
import tempfile
import traceback
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from pathlib import Path
from types import ModuleType, TracebackType
from typing import Any, overload

from aimlhpo.errors import ObjectiveError
from aimlhpo.objective.outcome import extract_values


class SourceError(Exception):
    """A file that cannot be imported; `detail` is its own traceback, where it has one."""

    def __init__(self, message: str, detail: str = "") -> None:
        self.message, self.detail = message, detail
        super().__init__(message)


def import_file(file: Path, purpose: str) -> ModuleType:
    """Run the file as a module under a name that no other file has; `purpose` is a part of that name.

    Raises SourceError.
    """
    name = module_name(file, purpose)
    spec = importlib.util.spec_from_file_location(name, file)
    if spec is None or spec.loader is None:
        raise SourceError(f"{file}: not a Python file; its name has to end with .py")
    module = importlib.util.module_from_spec(spec)
    # The folder stays on the path: helper modules beside the file are imported late, too.
    if str(file.parent) not in sys.path:
        sys.path.insert(0, str(file.parent))
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except (Exception, SystemExit) as error:
        del sys.modules[name]
        raise SourceError(f"{file}: importing it failed", trim(error, file)) from error
    return module


def module_name(file: Path, purpose: str) -> str:
    """The name that the file is imported under."""
    return f"aimlhpo_{purpose}_{hashlib.sha256(str(file).encode()).hexdigest()[:12]}"


def trim(error: BaseException, file: Path) -> str:
    """The traceback from the file's first line on, without the machinery that imported it."""
    tb: TracebackType | None = error.__traceback__
    while tb is not None and tb.tb_frame.f_code.co_filename != str(file):
        tb = tb.tb_next
    return "".join(traceback.format_exception(type(error), error, tb)).rstrip()


class BaseObjective(ABC):
    """One trial's work. Subclass it as `Objective` and write `train`.

    self.study: what is known of the study; None when the objective runs outside of one
    self.config: the model YAML, with the search space under ["optuna"]["parameters"]
    self.metric: the metric's name, or the list of names of a study with several
    self.device: "cpu", or a torch-style name such as "cuda:0"
    """

    @overload
    def __init__(
        self,
        study: Any,
        config: Mapping[str, Any],
        metric: str | list[str] = "val_loss",
        device: str = "cpu",
    ) -> None: ...

    @overload
    def __init__(
        self, config: Mapping[str, Any], metric: str | list[str] = "val_loss", device: str = "cpu"
    ) -> None: ...

    def __init__(self, *arguments: Any, **named: Any) -> None:
        given = _name_arguments(arguments, named)
        self.study: Any = given.get("study")
        self.config: dict[str, Any] = given["config"]
        self.metric: str | list[str] = given.get("metric", "val_loss")
        self.device: str = given.get("device", "cpu")

    @abstractmethod
    def train(self, trial: Any, conf: dict[str, Any]) -> Any:
        """Train with this trial's model configuration; return a dict that holds the metric."""

    def __call__(self, trial: Any) -> float | list[float]:
        """Run one trial: the value of the metric, or the list of values."""
        results = self.train(trial, trial_config(trial, self.config))
        record = getattr(trial, "record_results", None)
        if record is not None:
            record(results)
        return self.save(trial, results)

    def save(self, trial: Any, results: Any) -> float | list[float]:
        """Take the study's metrics out of what `train` returned; raises MissingMetric or BadValue."""
        single = isinstance(self.metric, str)
        values = extract_values(results, [self.metric] if isinstance(self.metric, str) else self.metric)
        return values[0] if single else values

    def checkpoint_dir(self, trial: Any) -> Path:
        """The trial's own directory, made when first asked for; it outlives the worker, and a retried trial
        finds in it what an earlier attempt wrote."""
        folder = getattr(trial, "checkpoint_dir", None)
        if folder is None:  # outside of a study, for example with optuna.trial.FixedTrial
            return Path(tempfile.mkdtemp(prefix="aimlhpo-checkpoint-"))
        Path(folder).mkdir(parents=True, exist_ok=True)
        return Path(folder)


def trial_config(trial: Any, config: Mapping[str, Any]) -> dict[str, Any]:
    """The model configuration with the trial's values put in: a dict of the trial's own."""
    conf: dict[str, Any] | None = getattr(trial, "conf", None)
    return conf if conf is not None else copy.deepcopy(dict(config))


def _name_arguments(arguments: tuple[Any, ...], named: Mapping[str, Any]) -> dict[str, Any]:
    """Give positional arguments their names: the study may be left out in front of the configuration."""
    names = ["study", "config", "metric", "device"]
    if arguments and isinstance(arguments[0], Mapping):
        names = names[1:]
    if len(arguments) > len(names):
        raise TypeError(f"BaseObjective takes {', '.join(names)}; got {len(arguments)} arguments")
    given = dict(zip(names, arguments, strict=False))
    unknown = [name for name in named if name not in names]
    repeated = [name for name in named if name in given]
    if unknown or repeated:
        raise TypeError(f"BaseObjective takes {', '.join(names)}, each once; got {[*unknown, *repeated]}")
    given.update(named)
    if not isinstance(given.get("config"), Mapping):
        raise TypeError("BaseObjective needs `config`, the model configuration: a dict")
    return given


def load_objective(path: str | Path) -> type[BaseObjective]:
    """The class `Objective` of a file; modules beside the file import as they would for a script there.

    Raises ObjectiveError, with the file's own traceback last where it has one.
    """
    file = Path(path).resolve()
    if not file.is_file():
        raise ObjectiveError(f"{file}: no such file. Set optuna: objective to the file that holds Objective.")
    return _check_class(file, getattr(_import(file), "Objective", None))


def make_objective(
    cls: type[BaseObjective], study: Any, config: Mapping[str, Any], metric: str | list[str], device: str
) -> BaseObjective:
    """An instance, given those of `study, config, metric, device` that its signature asks for, by name.

    Raises ObjectiveError when the signature asks for anything else or `__init__` fails.
    """
    given = {"study": study, "config": config, "metric": metric, "device": device}
    arguments = _select_arguments(cls, given)
    build: Callable[..., BaseObjective] = cls
    try:
        objective = build(**arguments)
    except Exception as error:
        raise ObjectiveError(f"{_file_of(cls)}: Objective(...) failed", trim(error, _file_of(cls))) from error
    if not hasattr(objective, "metric"):
        raise ObjectiveError(f"{_file_of(cls)}: Objective.__init__ must call BaseObjective.__init__ (super)")
    return objective


def _import(file: Path) -> ModuleType:
    try:
        return import_file(file, "objective")
    except SourceError as error:
        raise ObjectiveError(error.message, error.detail) from error


def _check_class(file: Path, cls: object) -> type[BaseObjective]:
    if cls is None:
        raise ObjectiveError(f"{file}: no class Objective in it. Write: class Objective(BaseObjective)")
    if not (isinstance(cls, type) and issubclass(cls, BaseObjective)):
        raise ObjectiveError(f"{file}: Objective is not a subclass of aimlhpo.BaseObjective")
    if cls.train is BaseObjective.train:
        raise ObjectiveError(f"{file}: Objective lacks a method. Write: def train(self, trial, conf) -> dict")
    return cls


def _select_arguments(cls: type[BaseObjective], given: dict[str, Any]) -> dict[str, Any]:
    parameters = inspect.signature(cls).parameters.values()
    if any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters):
        return given
    named = [p for p in parameters if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)]
    unknown = [p.name for p in parameters if p.name not in given and p.default is p.empty]
    if unknown:
        legal = "study, config, metric, device"
        raise ObjectiveError(f"{_file_of(cls)}: Objective.__init__ asks for {unknown}; it is given: {legal}")
    return {p.name: given[p.name] for p in named if p.name in given}


def _file_of(cls: type) -> Path:
    module = sys.modules.get(cls.__module__)
    return Path(getattr(module, "__file__", None) or cls.__module__)
