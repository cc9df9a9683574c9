"""The class that users subclass in their objective.py, loading it from there, what it may return, and what it ran on.

Runs in the processes that train, and in the fork server; user code may use `BaseObjective` outside of a study, too.
Imports no framework: arrays and tensors are recognised by their attributes.
"""

from __future__ import annotations

import copy
import hashlib
import importlib.util
import inspect
import math
import platform
import subprocess
import sys
import tempfile
import traceback
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from functools import cache
from importlib import metadata
from numbers import Real
from pathlib import Path
from types import ModuleType, TracebackType
from typing import Any, overload

from aimlhpo.errors import AimlhpoError, ObjectiveError
from aimlhpo.objective.trial import one_element, plain

_ARGUMENTS = ("study", "config", "metric", "device")
_objectives: set[str] = set()  # the names of the objectives that this process has imported
_being_imported: Path | None = None
_GIT_TIMEOUT = 5  # seconds
_owners = cache(metadata.packages_distributions)


# --- what an objective returns ---


class OutcomeError(AimlhpoError):
    """A trial did not give what the study needs; `cause` is what is stored with the failed trial."""

    def __init__(self, cause: str, message: str) -> None:
        self.cause = cause
        super().__init__(message)

    def __reduce__(self) -> tuple[type[OutcomeError], tuple[str, str]]:
        return type(self), (self.cause, str(self))


class Pruned(AimlhpoError):
    """The trial is pruned: the same as `optuna.TrialPruned`, without loading Optuna."""


class MissingMetric(OutcomeError):
    """The returned dict lacks a metric of the study."""


class BadValue(OutcomeError):
    """A metric's value is not a finite real number."""


def extract_values(results: Any, metrics: Sequence[str]) -> list[float]:
    """The values of `metrics`, in their order, out of a dict, a number, or (several metrics) a list or tuple.

    Scalars, arrays and tensors with one element, of any framework, count as the numbers they hold.
    Raises MissingMetric or BadValue, naming what was returned.
    """
    if isinstance(results, Mapping):
        for metric in metrics:
            if metric not in results:
                names = _shorten(", ".join(sorted(map(str, results))) or "nothing")
                raise MissingMetric(
                    f"missing metric: {metric}; returned: {names}",
                    f"the returned dict has no metric {metric!r}; it holds: {names}",
                )
        values = [results[metric] for metric in metrics]
    elif len(metrics) == 1:
        values = [results]
    elif isinstance(results, list | tuple) and len(results) == len(metrics):
        values = list(results)
    else:
        expected = f"a dict or a list with the {len(metrics)} metrics {', '.join(metrics)}"
        raise BadValue(f"bad value: {_describe(results)}", f"expected {expected}, got {_describe(results)}")
    return [_number(metric, value) for metric, value in zip(metrics, values, strict=True)]


def scalars(results: Any) -> dict[str, int | float | str | bool]:
    """The scalar entries of a returned dict, as plain Python values: what is kept with the trial."""
    if not isinstance(results, Mapping):
        return {}
    found = {str(name): one_element(value) for name, value in results.items()}
    return {name: plain(value) for name, value in found.items() if isinstance(value, int | float | str)}


def _number(metric: str, value: Any) -> float:
    found = one_element(value)
    if isinstance(found, bool) or not isinstance(found, Real):
        raise _bad(metric, value, "a number is needed")
    try:
        number = float(found)
    except OverflowError:
        raise _bad(metric, value, "it does not fit into a float") from None
    if math.isnan(number):
        raise BadValue("nan", f"metric {metric!r} is nan")
    if math.isinf(number):
        raise _bad(metric, value, "a finite number is needed")
    return number


def _bad(metric: str, value: Any, need: str) -> BadValue:
    what = _describe(value)
    return BadValue(f"bad value: {metric} is {what}", f"metric {metric!r} is {what}; {need}")


def _describe(value: Any) -> str:
    if value is None:
        return "None"
    cls = type(value)
    name = cls.__name__ if cls.__module__ == "builtins" else f"{cls.__module__}.{cls.__qualname__}"
    try:
        text = repr(value)
    except Exception as error:  # noqa: BLE001 -- a user's class may fail to describe itself
        text = f"<no repr: {type(error).__name__}>"
    return f"{_shorten(text)} ({name})"


def _shorten(text: str, limit: int = 200) -> str:
    line = " ".join(text.split())
    return line if len(line) <= limit else f"{line[: limit - 3]}..."


# --- the class, and loading it ---


class BaseObjective(ABC):
    """One trial's work. Subclass it as `Objective` and write `train`.

    A worker makes one instance and calls it for each trial. `BaseObjective.__init__` takes `study, config, metric,
    device`, by position or by name; `study` may be left out in front of a `config` that is a dict. A subclass whose
    `__init__` asks for fewer of them is given those, by name.

    Attributes:
        study: what is known of the study, its name, directions and metrics; None when the objective runs outside of
            one.
        config: the model YAML as a dict, with the search space under ["optuna"]["parameters"].
        metric: the metric's name, or the list of names of a study with several.
        device: "cpu", or a torch-style name such as "cuda:0".
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
        names = _ARGUMENTS[1:] if arguments and isinstance(arguments[0], Mapping) else _ARGUMENTS
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
        self.study: Any = given.get("study")
        self.config: dict[str, Any] = given["config"]
        self.metric: str | list[str] = given.get("metric", "val_loss")
        self.device: str = given.get("device", "cpu")

    @abstractmethod
    def train(self, trial: Any, conf: dict[str, Any]) -> Any:
        """Train once, with this trial's model configuration.

        Args:
            trial: an `aimlhpo.objective.trial.Trial`, which offers what Optuna's trials do (`suggest_float`,
                `report`, `should_prune`, ...); outside of a study, any of Optuna's own.
            conf: the model configuration with the trial's values in it. It is the trial's own: changes that are made
                to it are kept with the trial.

        Returns:
            A dict that holds the metric, or all metrics of a study with several; its other numbers, texts and
            booleans go to the results table. With one metric, the number itself will do.

        Whatever it raises fails this trial alone; `optuna.TrialPruned` says that the trial was pruned.
        """

    def __call__(self, trial: Any) -> float | list[float]:
        """Run one trial, as Optuna's `study.optimize` does.

        Returns the value of the metric, or the list of values. Raises MissingMetric or BadValue where `train` did not
        return them, and what `train` raises.
        """
        conf: dict[str, Any] | None = getattr(trial, "conf", None)
        results = self.train(trial, conf if conf is not None else copy.deepcopy(dict(self.config)))
        record = getattr(trial, "record_results", None)
        if record is not None:
            record(results)
        return self.save(trial, results)

    def save(self, trial: Any, results: Any) -> float | list[float]:
        """Take the study's metrics out of what `train` returned. Raises MissingMetric or BadValue."""
        single = isinstance(self.metric, str)
        values = extract_values(results, [self.metric] if isinstance(self.metric, str) else self.metric)
        return values[0] if single else values

    def checkpoint_dir(self, trial: Any) -> Path:
        """The trial's own directory, made when it is first asked for.

        It outlives the worker: a trial that was interrupted finds in it what its earlier attempts wrote. Outside of a
        study it is a new temporary directory.
        """
        folder = getattr(trial, "checkpoint_dir", None)
        if folder is None:  # for example with optuna.trial.FixedTrial
            return Path(tempfile.mkdtemp(prefix="aimlhpo-checkpoint-"))
        Path(folder).mkdir(parents=True, exist_ok=True)
        return Path(folder)


def load_objective(path: str | Path) -> type[BaseObjective]:
    """The class `Objective` of a file.

    The file becomes a module like any other, named after the file, and its folder is the first on the path: processes
    that user code starts can import it, and what was pickled of its classes can be read elsewhere. As for a script,
    modules beside the file can be imported, and `sys.argv` holds the file alone.

    Raises ObjectiveError, with the file's own traceback last where it has one.
    """
    global _being_imported
    file = Path(path).resolve()
    if not file.is_file():
        raise ObjectiveError(f"{file}: no such file. Set optuna: objective to the file that holds Objective.")
    sys.argv[:] = [str(file)]
    _being_imported = file
    try:
        module = _import_by_name(file)
    finally:
        _being_imported = None
    cls = getattr(module, "Objective", None)
    if cls is None:
        raise ObjectiveError(f"{file}: no class Objective in it. Write: class Objective(BaseObjective)")
    if not (isinstance(cls, type) and issubclass(cls, BaseObjective)):
        raise ObjectiveError(f"{file}: Objective is not a subclass of aimlhpo.BaseObjective")
    if cls.train is BaseObjective.train:
        raise ObjectiveError(f"{file}: Objective lacks a method. Write: def train(self, trial, conf) -> dict")
    return cls


def being_imported() -> Path | None:
    """The file that this process is importing as an objective just now, if any."""
    return _being_imported


def make_objective(
    cls: type[BaseObjective], study: Any, config: Mapping[str, Any], metric: str | list[str], device: str
) -> BaseObjective:
    """An instance, given those of `study, config, metric, device` that its signature asks for, by name.

    Raises ObjectiveError when the signature asks for anything else or `__init__` fails.
    """
    given = {"study": study, "config": config, "metric": metric, "device": device}
    file = Path(getattr(sys.modules.get(cls.__module__), "__file__", None) or cls.__module__)
    parameters = inspect.signature(cls).parameters.values()
    if not any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters):
        unknown = [p.name for p in parameters if p.name not in given and p.default is p.empty]
        if unknown:
            legal = ", ".join(_ARGUMENTS)
            raise ObjectiveError(f"{file}: Objective.__init__ asks for {unknown}; it is given: {legal}")
        named = [p.name for p in parameters if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)]
        given = {name: given[name] for name in named if name in given}
    build: Callable[..., BaseObjective] = cls
    try:
        objective = build(**given)
    except Exception as error:
        raise ObjectiveError(f"{file}: Objective(...) failed", trim(error, file)) from error
    if not hasattr(objective, "metric"):
        raise ObjectiveError(f"{file}: Objective.__init__ must call BaseObjective.__init__ (super)")
    return objective


def _import_by_name(file: Path) -> ModuleType:
    """Import a file under its own name, where that is what Python finds under this name in any process."""
    name, folder = file.stem, str(file.parent)
    if file.suffix != ".py":
        raise _not_python(file)
    if "." in name:
        raise ObjectiveError(
            f"{file}: a module's name holds no dots, so that other processes could not import the file.\n"
            f"    Rename it, for example to {name.replace('.', '_')}.py."
        )
    sys.path[:] = [folder, *(entry for entry in sys.path if entry != folder)]
    sys.path_importer_cache.pop(folder, None)  # it may not know of a file that has just been written
    if name in _objectives:  # another file of that name, or the same one
        sys.modules.pop(name, None)
    found: str | None = "built-in"
    with suppress(ValueError):  # a module that was put together by hand
        spec = importlib.util.find_spec(name)
        found = spec.origin if spec is not None else None
    if found != str(file):
        raise ObjectiveError(
            f"{file}: there is another module named {name!r} ({found}), which Python takes for this one.\n"
            f"    Rename the file, for example to {name}_objective.py."
        )
    try:
        module = importlib.import_module(name)
    except (Exception, SystemExit) as error:
        raise _failed(file, error) from error
    _objectives.add(name)
    return module


def import_file(file: Path, purpose: str) -> ModuleType:
    """Run a user's Python file as a module, under a name that no other file has; `purpose` is a part of that name.

    Raises ObjectiveError.
    """
    name = module_name(file, purpose)
    spec = importlib.util.spec_from_file_location(name, file)
    if spec is None or spec.loader is None:
        raise _not_python(file)
    module = importlib.util.module_from_spec(spec)
    # The folder stays on the path: helper modules beside the file are imported late, too.
    if str(file.parent) not in sys.path:
        sys.path.insert(0, str(file.parent))
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except (Exception, SystemExit) as error:
        del sys.modules[name]
        raise _failed(file, error) from error
    return module


def _not_python(file: Path) -> ObjectiveError:
    return ObjectiveError(f"{file}: not a Python file; its name has to end with .py")


def _failed(file: Path, error: BaseException) -> ObjectiveError:
    """Why the import failed, in words where the file has ended the process on purpose."""
    if not isinstance(error, SystemExit):
        return ObjectiveError(f"{file}: importing it failed", trim(error, file))
    code = 0 if error.code is None else error.code
    ended = f"exits with {code!r}" if isinstance(code, str) else f"exits with code {code}"
    trace = _from_file(error, file)
    line = f"line {trace.tb_lineno} " if trace is not None else ""
    return ObjectiveError(
        f"{file}: {line}{ended} when the file is imported (SystemExit).\n"
        '    Workers import the file. What is for a script alone goes under: if __name__ == "__main__":'
    )


def module_name(file: Path, purpose: str) -> str:
    """The name that the file is imported under."""
    return f"aimlhpo_{purpose}_{hashlib.sha256(str(file).encode()).hexdigest()[:12]}"


def trim(error: BaseException, file: Path) -> str:
    """The traceback from the file's first line on, without the machinery that imported it."""
    return "".join(traceback.format_exception(type(error), error, _from_file(error, file))).rstrip()


def _from_file(error: BaseException, file: Path) -> TracebackType | None:
    tb: TracebackType | None = error.__traceback__
    while tb is not None and tb.tb_frame.f_code.co_filename != str(file):
        tb = tb.tb_next
    return tb


# --- what a trial ran on ---


def provenance(objective: str) -> dict[str, Any]:
    """Versions of the packages that are loaded, the hash of the objective's file, and its commit where it has one.

    What is known of the file and of the installed packages is looked up once: workers that are forked of a process
    which has called this have it already, and it describes the text that was imported.
    """
    owners = _owners()
    loaded = {name.partition(".")[0] for name in sys.modules}
    names = {owner for module in loaded for owner in owners.get(module, [])}
    packages = {name: metadata.version(name) for name in sorted(names)}
    return {"python": platform.python_version(), "packages": packages, **_text(Path(objective))}


@cache
def _text(objective: Path) -> dict[str, str | None]:
    """The file's hash, and the commit that is checked out, with `+` behind it where files differ from it."""
    commit = _git(objective.parent, "rev-parse", "HEAD")
    if commit is not None and _git(objective.parent, "status", "--porcelain", "--untracked-files=no"):
        commit += "+"
    return {"objective_sha256": sha256_of(objective), "git_commit": commit}


def has_changed(source: str | None, provenances: Iterable[Mapping[str, Any]]) -> bool:
    """Whether a file has another text than in all trials of a study, as far as what they ran on tells."""
    known = {provenance.get("objective_sha256") for provenance in provenances}
    return bool(known and source and sha256_of(Path(source)) not in known)


def sha256_of(path: Path) -> str | None:
    """The hash of a file's content; None for what cannot be read, as a program may be."""
    try:
        with open(path, "rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError:
        return None


def _git(directory: Path, *arguments: str) -> str | None:
    try:
        answer = subprocess.run(
            ["git", "-C", str(directory), *arguments],
            capture_output=True,
            text=True,
            timeout=_GIT_TIMEOUT,
            check=True,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return answer.stdout.strip() or None
