"""What keys leave open, and where things lie: fills in names and URLs, and makes paths absolute, so that jobs find them
from any directory and a later start finds the same study.

All of it works on the plain data of the hyperparameter YAML, in place, before the schema checks it: the copy beside the
study keeps the result. What does not have the right form is left for the schema to refuse.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from aimlhpo.config.fields import NO_SECTION_NAME, as_list
from aimlhpo.config.sbatch_options import long_name
from aimlhpo.errors import Problem, show
from aimlhpo.space.model_paths import exists, lookup
from aimlhpo.space.parameter_types import as_number
from aimlhpo.space.search_space import SearchSpace

_VARIABLE = re.compile(r"\$\{([A-Za-z_][A-Za-z0-9_]*)\}")
_SHORT_VARIABLE = re.compile(r"\$([A-Za-z_][A-Za-z0-9_]*)")
_VARIABLE_OF_PATH = re.compile(r"\$\{?([A-Za-z_][A-Za-z0-9_]*)\}?")
_URL_OF_FILE = re.compile(r"((?:sqlite(?:\+\w+)?:///)|journal://)(/.*)")
_CLASS_OF_FILE = re.compile(r"\.py:\w+$")
SQLITE_SUFFIXES = (".db", ".sqlite", ".sqlite3")
"""A storage that is a file name with one of these, and no URL, is an SQLite file in save_path."""
RESOURCES = ("min_resource", "max_resource")
"""Arguments of pruners that may be the colon path of a number in the model YAML."""

_PLACES = (
    "save_path", "storage", "objective", "working_directory", "sampler", "pruner", "terminator", "warm_start_from",
)  # fmt: skip
"""Keys of the `optuna` section whose values are paths, or hold some."""


def expanded(text: str) -> str:
    """The URL with the environment's values in place of the `${VARIABLES}` that are set."""
    return _VARIABLE.sub(lambda match: os.environ.get(match[1], match[0]), text)


def variable_problems(where: str, text: str | None, *, path: bool = False) -> list[Problem]:
    """A problem for each `${VARIABLE}`, in a path also `$VARIABLE`, that the environment does not have."""
    legal = "a variable that is set in the environment: export {}=..."
    found = (_VARIABLE_OF_PATH if path else _VARIABLE).finditer(text or "")
    return [
        Problem(where, f"{match[0]} is not set", legal.format(match[1]))
        for match in found
        if match[1] not in os.environ
    ]


def absolute(path: str) -> str:
    """The path from the current directory, `~` and `$VARIABLE` or `${VARIABLE}` followed where they are set."""
    return os.path.abspath(os.path.expanduser(os.path.expandvars(path)))


def section_name(section: Any, position: int) -> str:
    """What a section in a list of them is called: by its `name`, else its partition (if a word), else its position."""
    given = section if isinstance(section, dict) else {}
    batch = given.get("batch")
    options = {long_name(str(key)): value for key, value in batch.items()} if isinstance(batch, dict) else {}
    name, partition = given.get("name"), options.get("partition")
    is_word = isinstance(partition, str | int) and not NO_SECTION_NAME.search(str(partition))
    return str(name if name is not None else partition if is_word else position)


def resolve(hyperparameters: dict[str, Any], problems: list[Problem]) -> bool:
    """Fill in what other keys decide and make paths absolute. Returns whether a storage was named.

    Mistakes that can only be seen in the file as it was written are added to `problems`.
    """
    optuna, log = hyperparameters.get("optuna"), hyperparameters.get("log")
    jobs = _resolve_sections(hyperparameters.get("slurm"))
    if not isinstance(optuna, dict):
        return True
    if "name" in optuna:  # another word for study_name
        name = optuna.pop("name")
        if optuna.setdefault("study_name", name) != name:
            found = f"is {show(name)}, and study_name is {show(optuna['study_name'])}"
            problems.append(Problem("optuna: name", found, "one of the two keys"))
    if optuna.get("save_path") is None:
        in_log = log.get("save_path") if isinstance(log, dict) else None
        optuna["save_path"] = "." if in_log is None else in_log
    optuna["save_path"] = _absolute(optuna["save_path"])
    if isinstance(optuna.get("objective"), str):
        optuna["objective"] = absolute(optuna["objective"])
    if isinstance(optuna.get("command"), str) and isinstance(optuna.get("working_directory", "."), str):
        optuna["working_directory"] = absolute(optuna.get("working_directory", "."))
    for kind in ("sampler", "pruner", "terminator"):
        if kind in optuna:
            optuna[kind] = _absolute_classes(optuna[kind])
    _resolve_warm_start(optuna)
    name, save_path, storage = optuna.get("study_name"), optuna["save_path"], optuna.get("storage")
    if not isinstance(name, str) or not isinstance(save_path, str):
        return storage is not None
    if storage is None:
        # What is there already, else a new file in save_path. Jobs on several nodes begin with a journal file, which
        # needs no server and may lie on a network file system; everything else begins with SQLite.
        stem = optuna["study_name"] = name.removesuffix(".db") or name
        sqlite, journal = (os.path.join(save_path, f"{stem}.{ending}") for ending in ("db", "journal"))
        as_journal = not os.path.exists(sqlite) and (jobs > 1 or os.path.exists(journal))
        optuna["storage"] = f"journal://{journal}" if as_journal else f"sqlite:///{sqlite}"
        if os.sep in name:
            found = f"{show(name)} is a path"
            problems.append(Problem("optuna: study_name", found, "a name; the file lies in save_path"))
    elif isinstance(storage, str):
        optuna["storage"] = _absolute_storage(storage, save_path, name)
    resolve_tracking(log, save_path, optuna["study_name"])
    return storage is not None


def _resolve_sections(slurm: Any) -> float:
    """Give each section in a list its name. Returns how many jobs all of them have."""
    sections = [section for section in as_list(slurm) if isinstance(section, dict)]
    for position, section in enumerate(slurm if isinstance(slurm, list) else ()):
        if isinstance(section, dict):
            section["name"] = section_name(section, position)
    return sum(as_number(section.get("jobs")) or 1 for section in sections)


def relocate(hyperparameters: dict[str, Any], save_path: str) -> None:
    """Have the paths of a study that was begun in another directory lead to this one, to which it was moved or copied.

    What lies beside the study, such as its objective, is looked for where it would have been moved along.
    """
    optuna, log = (hyperparameters.get(section) for section in ("optuna", "log"))
    before = optuna.get("save_path") if isinstance(optuna, dict) else None
    if not isinstance(optuna, dict) or not isinstance(before, str) or is_same_directory(before, save_path):
        return
    old, new = Path(before), Path(save_path)
    while old.name == new.name and old.name:
        old, new = old.parent, new.parent

    def moved(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: moved(item) for key, item in value.items()}
        if not isinstance(value, str):
            return value
        scheme, path = match.groups(default="") if (match := _URL_OF_FILE.fullmatch(value)) else ("", value)
        if Path(path).is_relative_to(before):
            return scheme + str(Path(save_path, Path(path).relative_to(before)))
        beside = new / Path(path).relative_to(old) if Path(path).is_relative_to(old) else None
        file = beside if beside is None or ".py:" not in value else Path(str(beside).rpartition(":")[0])
        return scheme + str(beside) if file is not None and file.exists() else value

    optuna.update({key: moved(optuna[key]) for key in _PLACES if key in optuna})
    if isinstance(log, dict):
        log.update(moved(log))


def is_same_directory(one: str | Path, other: str | Path) -> bool:
    """Whether both paths lead to one directory, which has a name of its own on some machines."""
    try:
        return str(one) == str(other) or os.path.samefile(one, other)
    except OSError:
        return False


def resolve_tracking(log: Any, save_path: str, name: str) -> None:
    """Fill in what the `log` section leaves open of the tracking tools' places, and make them absolute."""
    if not isinstance(log, dict):
        return
    for tool, key, default in (
        ("mlflow", "uri", f"sqlite:///{save_path}/mlflow.db"),
        ("tensorboard", "directory", os.path.join(save_path, "tensorboard")),
    ):
        asked = log.get(tool)
        asked = {} if asked is True else {key: asked} if isinstance(asked, str) else asked
        if isinstance(asked, dict):
            place, more = asked.get(key, default), {"experiment": name} if tool == "mlflow" else {}
            log[tool] = {**more, **asked, key: _absolute_uri(place) if tool == "mlflow" else _absolute(place)}


def resolve_resources(optuna: Any, model: Mapping[str, Any], space: SearchSpace) -> bool:
    """Put the model config's numbers in place of a pruner's colon paths; a path that is wrong stays.

    Returns whether anything was put in place.
    """
    changed = False
    mappings = [optuna.get("pruner")] if isinstance(optuna, dict) else []
    while mappings:
        mapping = mappings.pop()
        if not isinstance(mapping, dict):
            continue
        mappings += mapping.values()
        for key in RESOURCES:
            path = mapping.get(key)
            number = resource_at(path, model, space) if isinstance(path, str) else None
            if number is not None:
                mapping[key], changed = number, True
    return changed


def resource_at(path: str, model: Mapping[str, Any], space: SearchSpace) -> int | None:
    """The resource that a colon path names: a whole number of the model config that no trial changes, 1 or more."""
    value = lookup(model, path) if exists(model, path) and path not in space.by_key else None
    number = None if isinstance(value, str) else as_number(value)
    return number if isinstance(number, int) and number >= 1 else None


def _absolute(path: Any) -> Any:
    return absolute(path) if isinstance(path, str) and path.strip() and "://" not in path else path


def _absolute_classes(value: Any) -> Any:
    """A sampler or pruner as the file names it, with an absolute file in each FILE.py:CLASS."""
    if isinstance(value, dict):
        return {key: _absolute_classes(item) for key, item in value.items()}
    if not isinstance(value, str) or not _CLASS_OF_FILE.search(value):
        return value
    file, _, name = value.rpartition(":")
    return f"{absolute(file)}:{name}"


def _absolute_storage(url: str, save_path: str, name: str) -> str:
    """The storage's URL with an absolute file, for the kinds that have one; variables stay, as `${NAME}`."""
    if url == "journal":
        return f"journal://{os.path.join(save_path, name)}.journal"
    if "://" not in url and url.endswith(SQLITE_SUFFIXES):
        return f"sqlite:///{os.path.join(save_path, os.path.expanduser(os.path.expandvars(url)))}"
    scheme, _, rest = url.partition("://")
    if scheme.split("+")[0] not in ("sqlite", "journal"):
        return url
    rest = _SHORT_VARIABLE.sub(r"${\1}", rest)
    path = rest.removeprefix("/")
    if scheme == "journal" or not path or path.startswith(("/", ":memory:", "file:", "${")):
        return f"{scheme}://{rest}"
    return f"{scheme}:///{os.path.abspath(path)}"


def _absolute_uri(uri: Any) -> Any:
    """MLflow's URI with an absolute file or directory, for the kinds that have one; variables stay as they are."""
    if not isinstance(uri, str) or not uri.strip() or "${" in uri:
        return uri
    scheme, _, path = uri.partition(":///")
    if scheme == "sqlite" and path:
        return uri if path.startswith("/") else f"sqlite:///{os.path.abspath(path)}"
    return uri if ":" in uri else absolute(uri)


def _resolve_warm_start(optuna: dict[str, Any]) -> None:
    """Make the place of the other study absolute."""
    value = optuna.get("warm_start_from")
    if isinstance(value, str) and value.strip() and "\0" not in value:
        optuna["warm_start_from"] = absolute(value)
    elif isinstance(value, dict):
        storage, name, path = (value.get(key) for key in ("storage", "study_name", "path"))
        if isinstance(path, str) and path.strip():
            value["path"] = absolute(path)
        if isinstance(storage, str) and isinstance(name, str):
            value["storage"] = _absolute_storage(storage, os.getcwd(), name)
