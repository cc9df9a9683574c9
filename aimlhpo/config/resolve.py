"""Where things lie: save_path, objective and storage made absolute, so that jobs find them from any directory.
Where tracking tools are told of trials: URIs and directories filled in, made absolute and checked.
A pruner's resources as colon paths: `max_resource: trainer:epochs` is the number that the model config has there.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from aimlhpo.config.fields import CONTROL
from aimlhpo.errors import Problem, did_you_mean, key_path, show
from aimlhpo.space.declared import declared
from aimlhpo.space.model_paths import exists, lookup, nearest

_VARIABLE = re.compile(r"\$\{([A-Za-z_][A-Za-z0-9_]*)\}")
_CLASS_OF_FILE = re.compile(r"\.py:\w+$")
_CREDENTIALS = re.compile(r"//[^/@]*@")
SCHEMES = ("sqlite", "journal", "postgresql", "mysql", "redis", "rediss")
LEGAL_STORAGE = "journal, journal:///ABSOLUTE/FILE, sqlite:///FILE, or a postgresql://, mysql:// or redis:// URL"


def absolute(path: str) -> str:
    """The path from the current directory, `~` and `${VARIABLE}` followed where they are set."""
    return os.path.abspath(os.path.expanduser(expanded(path)))


def expanded(text: str) -> str:
    """The text with the environment's values in place of the `${VARIABLES}` that are set."""
    return _VARIABLE.sub(_expanded, text)


def _expanded(match: re.Match[str]) -> str:
    return os.environ.get(match[1], match[0])


def absolute_classes(value: Any) -> Any:
    """A sampler or pruner as the file names it, with an absolute file in each FILE.py:CLASS."""
    if isinstance(value, dict):
        return {key: absolute_classes(item) for key, item in value.items()}
    if not isinstance(value, str) or not _CLASS_OF_FILE.search(value):
        return value
    file, _, name = value.rpartition(":")
    return f"{absolute(file)}:{name}"


def unset_variables(text: str) -> list[str]:
    """The `${VARIABLES}` in a text that the environment does not have."""
    return [name for name in _VARIABLE.findall(text) if name not in os.environ]


def variable_problems(where: str, text: Any) -> list[Problem]:
    """A problem for each variable that is not set."""
    if not isinstance(text, str):
        return []
    legal = "a variable that is set in the environment"
    return [Problem(where, f"${{{name}}} is not set", legal) for name in unset_variables(text)]


def default_storage(save_path: str, name: str, shared: bool = False) -> tuple[str, str]:
    """Study name and URL where no storage is named: what is there already, else a new file in save_path.

    Jobs on several nodes (`shared`) begin with a journal file, which needs no server and may lie on a network file
    system; everything else begins with SQLite.
    """
    stem = name.removesuffix(".db") or name
    sqlite, journal = (os.path.join(save_path, f"{stem}.{ending}") for ending in ("db", "journal"))
    if not os.path.exists(sqlite) and (shared or os.path.exists(journal)):
        return stem, f"journal://{journal}"
    return stem, f"sqlite:///{sqlite}"


def resolve_storage(url: str, save_path: str, name: str) -> str:
    """The storage's URL with an absolute file, for the kinds that have one; variables stay as they are."""
    if url == "journal":
        return f"journal://{os.path.join(save_path, name)}.journal"
    scheme, _, path = url.partition(":///")
    if scheme.split("+")[0] != "sqlite" or not path or path.startswith(("/", ":memory:", "file:", "${")):
        return url
    return f"{scheme}:///{os.path.abspath(path)}"


def storage_problems(url: Any) -> list[Problem]:
    """What is wrong with `storage` as it stands in the file. Shows no password."""
    where = key_path("optuna", "storage")
    if not isinstance(url, str) or CONTROL.search(url):
        return []
    shown = show(_CREDENTIALS.sub("//...@", url))
    if url == "journal" or url.startswith("${"):
        return variable_problems(where, url)
    scheme, separator, rest = url.partition("://")
    if not separator or scheme.split("+")[0] not in SCHEMES:
        return [Problem(where, f"{shown} is not a storage", LEGAL_STORAGE, _guess(url))]
    if scheme.startswith("sqlite") and (rest in ("", "/") or ":memory:" in rest):
        return [Problem(where, f"{shown} lives in one process only", "sqlite:///FILE")]
    if scheme.startswith("sqlite") and not rest.startswith("/"):
        return [Problem(where, f"{shown} names no file", "sqlite:///FILE", f"sqlite:///{rest}")]
    if scheme == "journal" and not rest.startswith(("/", "${")):
        return [Problem(where, f"{shown} is not an absolute path", LEGAL_STORAGE, f"journal://{os.path.abspath(rest)}")]
    return variable_problems(where, url)


def _guess(url: str) -> str | None:
    if Path(url).suffix in (".db", ".sqlite", ".sqlite3"):
        return f"sqlite:///{url}"
    if Path(url).suffix in (".journal", ".log"):
        return f"journal://{os.path.abspath(url)}"
    scheme, separator, rest = url.partition("://")
    near = "postgresql" if scheme == "postgres" else did_you_mean(scheme, SCHEMES)
    return f"{near}://..." if near and separator and rest else near


SERVERS = ("http", "https")
DATABASES = ("sqlite", "postgresql", "mysql", "mssql")
LEGAL_URI = "http(s)://SERVER, sqlite:///FILE, a postgresql://, mysql:// or mssql:// URL, or a directory"
_HOST_AND_PORT = re.compile(r"[\w.-]+:\d+(/.*)?")
_WHERE = key_path("log", "mlflow", "uri")


def resolve_tracking(log: Any, save_path: Any, name: Any) -> None:
    """Fill in the places that `log` leaves open, in place; what is no mapping or text is left to the schema."""
    if not isinstance(log, dict) or not isinstance(save_path, str) or not isinstance(name, str):
        return
    mlflow, tensorboard = _section(log.get("mlflow"), "uri"), _section(log.get("tensorboard"), "directory")
    if mlflow is not None:
        mlflow.setdefault("experiment", name)
        mlflow["uri"] = resolve_uri(mlflow.get("uri", f"sqlite:///{save_path}/mlflow.db"))
        log["mlflow"] = mlflow
    if tensorboard is not None:
        tensorboard["directory"] = _absolute(tensorboard.get("directory", os.path.join(save_path, "tensorboard")))
        log["tensorboard"] = tensorboard


def _section(value: Any, key: str) -> dict[str, Any] | None:
    if value is True:
        return {}
    if isinstance(value, str):
        return {key: value}
    return dict(value) if isinstance(value, dict) else None


def _absolute(path: Any) -> Any:
    return absolute(path) if isinstance(path, str) and path.strip() and "://" not in path else path


def resolve_uri(uri: Any) -> Any:
    """The URI with an absolute file or directory, for the kinds that have one; variables stay as they are."""
    if not isinstance(uri, str) or not uri.strip() or "${" in uri:
        return uri
    scheme, _, path = uri.partition(":///")
    if scheme == "sqlite" and path:
        return uri if path.startswith("/") else f"sqlite:///{os.path.abspath(path)}"
    return uri if ":" in uri else absolute(uri)


def tracking_problems(log: Any) -> Iterator[Problem]:
    """What is wrong with the places as they stand in the file. Shows no password."""
    mlflow = log.get("mlflow") if isinstance(log, dict) else None
    uri = mlflow.get("uri") if isinstance(mlflow, dict) else mlflow
    if isinstance(uri, str) and uri.strip() and not CONTROL.search(uri):
        yield from _uri_problems(uri)
    tensorboard = log.get("tensorboard") if isinstance(log, dict) else None
    directory = tensorboard.get("directory") if isinstance(tensorboard, dict) else tensorboard
    yield from variable_problems(key_path("log", "tensorboard", "directory"), directory)
    if isinstance(directory, str) and "://" in directory:
        yield Problem(key_path("log", "tensorboard", "directory"), f"{show(directory)} is a URL", "a directory")


def _uri_problems(uri: str) -> Iterator[Problem]:
    yield from variable_problems(_WHERE, uri)
    scheme, separator, rest = uri.partition("://")
    kind = scheme.split("+")[0]
    if uri.startswith("${") or uri.startswith("file:"):
        return
    if _HOST_AND_PORT.fullmatch(uri):
        yield Problem(_WHERE, f"{show(uri)} has no scheme", LEGAL_URI, f"http://{uri}")
    elif separator and kind not in (*SERVERS, *DATABASES):
        near = did_you_mean(kind, (*SERVERS, *DATABASES))
        yield Problem(_WHERE, f"the scheme {show(kind)} is not known", LEGAL_URI, f"{near}://..." if near else None)
    elif kind in SERVERS and not rest.strip("/"):
        yield Problem(_WHERE, f"{show(uri)} names no server", LEGAL_URI)
    elif kind in SERVERS and "@" in urlsplit(uri).netloc:
        legal = f"{kind}://{rest.rpartition('@')[2]}, and MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD set"
        yield Problem(_WHERE, "holds credentials, which would end up in copies of the configuration", legal)
    elif kind == "sqlite" and (rest in ("", "/") or not rest.startswith("/") or ":memory:" in rest):
        yield Problem(_WHERE, f"{show(uri)} names no file", "sqlite:///FILE")


KEYS = ("min_resource", "max_resource")
_STAND_INS = {"min_resource": 1, "max_resource": 1_000_000}
_LEGAL = "a whole number, 1 or more, or the colon path of one in the model YAML"


def fill_resources(optuna: dict[str, Any], model: Mapping[str, Any]) -> None:
    """Put the model config's numbers in place of their paths, in place; a path that is wrong stays."""
    for _, entry, key in _named(optuna):
        if _problem("", entry[key], optuna, model) is None:
            entry[key] = int(lookup(model, entry[key]))


def resource_problems(optuna: Mapping[str, Any], model: Mapping[str, Any]) -> Iterator[Problem]:
    """What is wrong with the paths that are left."""
    for where, entry, key in _named(optuna):
        problem = _problem(key_path(*where, key), entry[key], optuna, model)
        if problem is not None:
            yield problem


def without_paths(entry: Mapping[str, Any]) -> dict[str, Any]:
    """The strategy with numbers for paths that were not resolved, so that everything else in it can be checked."""
    return {key: _stand_in(key, value) for key, value in entry.items()}


def _stand_in(key: str, value: Any) -> Any:
    if isinstance(value, Mapping):
        return without_paths(value)
    return _STAND_INS[key] if key in KEYS and _is_path(value) else value


def _named(optuna: Mapping[str, Any]) -> Iterator[tuple[tuple[str, ...], dict[str, Any], str]]:
    """Every resource of the pruner, or of one that it wraps, that is given as a path: where, the mapping, the key."""
    yield from _inside(("optuna", "pruner"), optuna.get("pruner"))


def _inside(where: tuple[str, ...], entry: Any) -> Iterator[tuple[tuple[str, ...], dict[str, Any], str]]:
    if not isinstance(entry, dict):
        return
    for key, value in entry.items():
        if key in KEYS and _is_path(value):
            yield where, entry, key
        yield from _inside((*where, str(key)), value)


def _is_path(value: Any) -> bool:
    return isinstance(value, str) and value != "auto"


def _problem(where: str, path: str, optuna: Mapping[str, Any], model: Mapping[str, Any]) -> Problem | None:
    if not exists(model, path):
        return Problem(where, f"{show(path)} is not in the model YAML", _LEGAL, nearest(model, path))
    value = lookup(model, path)
    if any(parameter.key == path for parameter in declared(optuna.get("parameters"), model)):
        return Problem(where, f"{path} is searched: it differs from trial to trial", _LEGAL)
    if isinstance(value, bool) or not isinstance(value, int | float) or value != int(value) or value < 1:
        return Problem(where, f"{path} is {show(value)} in the model YAML", _LEGAL)
    return None
