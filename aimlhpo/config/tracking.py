"""Where tracking tools are told of trials: URIs and directories filled in, made absolute and checked."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlsplit

from aimlhpo.config.locations import absolute, variable_problems
from aimlhpo.config.values import CONTROL
from aimlhpo.errors import Problem
from aimlhpo.suggestions import did_you_mean, key_path, show

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
