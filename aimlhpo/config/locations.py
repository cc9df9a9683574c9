"""Where things lie: save_path, objective and storage made absolute, so that jobs find them from any directory."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

from aimlhpo.config.values import CONTROL
from aimlhpo.errors import Problem
from aimlhpo.suggestions import did_you_mean, key_path, show

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
