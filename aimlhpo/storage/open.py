"""From a URL to a storage: which kinds there are, how each is opened, and whether there is one already.

`STORAGES` is the registry. To add a kind, write its entry: how its URLs look, how it is opened, and how one finds out
without making or changing anything whether studies are in it. A URL with another scheme is left to SQLAlchemy.

Interface: `open_storage`, `holds_studies`, `disconnect_storage`; `file_of` and `literal_password` look at a URL alone.
URLs may hold `${VARIABLES}` of the environment, so that passwords need not be in files; no message shows their values.
A password in a variable of its own may hold any character: it is percent-encoded for the URL here.
"""

from __future__ import annotations

import os
import re
import sqlite3
import warnings
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from urllib.parse import quote, unquote

import optuna
from optuna.storages import BaseStorage, JournalStorage, RDBStorage
from optuna.storages.journal import JournalRedisBackend

from aimlhpo.errors import ConfigError, Problem, StorageError, file_problem, is_of_files
from aimlhpo.storage.journal_file import BatchingBackend
from aimlhpo.storage.optuna_internals import supported
from aimlhpo.storage.retry import first_line

CONNECT_TIMEOUT = 10  # seconds that a server may take to answer; it may be on a busy machine
_SQLITE_BUSY_TIMEOUT = 60  # seconds that a writer waits for another one
_VARIABLE = re.compile(r"\$\{(\w+)\}")
_PASSWORD_OPTION = re.compile(r"([?&]password=)(?!\$\{)[^&]+")
_CREDENTIALS = re.compile(r"(?<=://)[^/?#]*@|(?<=[?&]password=)[^&#]+")
_ENCODED = re.compile(r"(?:[A-Za-z0-9._~!$&'()*+,;=-]|%[0-9A-Fa-f]{2})*")
_AUTHORITY = re.compile(r"[^:]*://([^/?#]*)([^?]*)(.*)", re.DOTALL)
_LONGEST_NAME = 512  # characters, of the columns in Optuna's tables


@dataclass(frozen=True)
class StorageKind:
    """A kind of storage.

    Attributes:
        open: opens the storage at a URL, making its file or tables where they are missing.
        holds_studies: whether there is a storage at a URL, with Optuna's tables or records in it.
        legal: how its URLs look, for messages; empty for another name of a kind that has an entry already.
        file: the file that a URL names; None for the kinds that a server keeps.
        driver: what SQLAlchemy is told in place of the scheme alone.
        extra: the extra of aimlhpo that installs the driver.
        longest_name: how many characters the names of a study and its parameters may have.
    """

    open: Callable[[str], BaseStorage]
    holds_studies: Callable[[str], bool]
    legal: str = ""
    file: Callable[[str], Path] | None = None
    driver: str | None = None
    extra: str | None = None
    longest_name: int | None = None


def open_storage(url: str) -> BaseStorage:
    """Open the storage, making its file or tables where they are missing.

    Raises ConfigError for a URL that cannot mean a storage or lacks a driver, StorageError where it cannot be reached.
    """
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    expanded = expand(url)
    with _storage_errors(url), without_experimental_warnings():
        return _kind_of(expanded).open(expanded)


def holds_studies(url: str) -> bool:
    """Whether there is a storage with Optuna's tables or records at the URL; False where one would have to be made.

    Makes and changes nothing, and does not wait long for a server. Raises as `open_storage` does.
    """
    expanded = expand(url)
    with _storage_errors(url):
        return _kind_of(expanded).holds_studies(expanded)


def disconnect_storage(storage: BaseStorage) -> None:
    """Close the connections to a database: servers have few, and agents may be many.

    The storage opens new ones when it is used again.
    """
    inner = getattr(storage, "_backend", storage)
    if isinstance(inner, RDBStorage):
        inner.engine.dispose()


def file_of(url: str) -> Path | None:
    """The file that a storage is kept in; None for a server's."""
    expanded = expand(url)
    file = _kind_of(expanded).file
    return file(expanded) if file is not None else None


def longest_name(url: str) -> int | None:
    """How many characters the names of a study and its parameters may have; None: any number."""
    return _kind_of(expand(url)).longest_name


def literal_password(url: str) -> str | None:
    """The URL with `${PASSWORD}` in place of a password that it holds in plain text, or None."""
    if _kind_of(url).file is not None:
        return None
    user, colon, password = url.partition("://")[2].rpartition("@")[0].partition(":")
    if colon and password and not _VARIABLE.search(password):
        return url.replace(f"{user}:{password}@", f"{user}:${{PASSWORD}}@", 1)
    safe = _PASSWORD_OPTION.sub(r"\1${PASSWORD}", url)
    return safe if safe != url else None


def expand(url: str) -> str:
    """Put the environment's values in place of `${NAME}`, encoded where they are user names and passwords.

    A value that is percent-encoded already is left as it is. Raises ConfigError naming a variable that is not set, and
    for a URL whose parts cannot be told apart.
    """
    missing = [name for name in _VARIABLE.findall(url) if name not in os.environ]
    if missing:
        raise ConfigError(
            Problem("optuna: storage", f"the environment has no variable {missing[0]}", f"export {missing[0]}=...")
        )

    def encoded(part: re.Match[str]) -> str:
        def value(match: re.Match[str]) -> str:
            text = os.environ[match[1]]
            is_encoded = _ENCODED.fullmatch(text) and (part[0].endswith("@") or "+" not in text)
            return text if is_encoded else quote(text, safe="")

        return _VARIABLE.sub(value, part[0])

    expanded = _VARIABLE.sub(lambda match: os.environ[match[1]], _CREDENTIALS.sub(encoded, url))
    if _kind_of(expanded).file is None and _is_ambiguous(expanded):
        scheme = expanded.partition("://")[0]
        found = "the URL's parts cannot be told apart: its user name or password seems to hold one of @ / # ? :"
        legal = f"{scheme}://user:${{PASSWORD}}@host/..., where the variable may hold any character; or %40 for @ ..."
        raise ConfigError(Problem("optuna: storage", found, legal))
    return expanded


def _is_ambiguous(url: str) -> bool:
    """Whether a URL reads as if its host began within a password."""
    match = _AUTHORITY.fullmatch(url)
    if match is None:
        return False
    authority, path, query = match.groups()
    port = authority.rpartition("@")[2].partition(":")[2]
    cut_off = "@" not in authority and "@" in query and not port.isdecimal() and bool(port)
    return authority.count("@") > 1 or (bool(authority) and "@" in path) or cut_off


@contextmanager
def without_experimental_warnings() -> Iterator[None]:
    """Keep Optuna from warning that a call is experimental; that is ours to know, not the user's."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        yield


@contextmanager
def _storage_errors(url: str) -> Iterator[None]:
    """Raise what fails inside as ConfigError or StorageError, naming the URL without the values of its variables."""
    try:
        yield
    except (ConfigError, StorageError):
        raise
    except ImportError as error:
        scheme, kind = url.partition("://")[0], _kind_of(url)
        ours = kind.extra is not None and (scheme in STORAGES or scheme == kind.driver)
        advice = f"pip install 'aimlhpo[{kind.extra}]'" if ours else "install the driver that the URL names"
        problem = Problem("optuna: storage", f"the driver for {scheme}:// is not installed", advice)
        raise ConfigError(problem) from error
    except Exception as error:
        from sqlalchemy.exc import ArgumentError, SQLAlchemyError  # takes long, and journals do not need it

        if isinstance(error, PermissionError) and is_of_files(error):
            problem = file_problem(error)
            told = replace(problem, where="optuna: storage", found=f"{problem.where}: {problem.found}")
            raise ConfigError(told) from error
        is_no_url = isinstance(error, ValueError) and _kind_of(url).file is None  # such as a port that is no number
        if is_no_url or isinstance(error, ArgumentError):
            raise ConfigError(Problem("optuna: storage", f"{url!r} is no storage URL", legal_urls())) from error
        if isinstance(error, RuntimeError) and "storage upgrade" in str(error):
            legal = f'a copy of it, and then: optuna storage upgrade --storage "{url}"'
            problem = Problem("optuna: storage", "its tables were made by an older version of Optuna", legal)
            raise ConfigError(problem) from error
        expected = SQLAlchemyError, OSError, optuna.exceptions.StorageInternalError
        if not isinstance(error, expected) and not type(error).__module__.startswith("redis"):
            raise
        raise StorageError(f"the storage {url} cannot be opened: {_without_secrets(first_line(error), url)}") from error


def _without_secrets(line: str, url: str) -> str:
    """What a driver says, without the values of the URL's variables and without its password."""
    shown = {os.environ[name]: f"${{{name}}}" for name in _VARIABLE.findall(url)}
    for part in _CREDENTIALS.findall(expand(url)):
        shown[part.removesuffix("@").partition(":")[2] if part.endswith("@") else part] = "..."
    for value, name in shown.items():
        for form in filter(None, (value, quote(value, safe=""), unquote(value))):
            line = line.replace(form, name)
    return line


# --- the kinds ---


def open_journal(url: str) -> BaseStorage:
    path = _journal_file(url)
    path.parent.mkdir(parents=True, exist_ok=True)
    backend = BatchingBackend(path)
    if not supported():
        return JournalStorage(backend)
    from aimlhpo.storage.journal import Journal  # depends on names that are not there where it is not supported

    return Journal(backend)


def _journal_file(url: str) -> Path:
    return Path(url.partition("://")[2])


def journal_holds_studies(url: str) -> bool:
    path = _journal_file(url)
    return path.exists() and path.stat().st_size > 0


def open_sqlite(url: str) -> BaseStorage:
    path = _sqlite_file(url)
    path.parent.mkdir(parents=True, exist_ok=True)
    os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))  # before SQLite makes it readable for all
    return _cached(RDBStorage(url, engine_kwargs={"connect_args": {"timeout": _SQLITE_BUSY_TIMEOUT}}))


def _cached(storage: RDBStorage) -> BaseStorage:
    """With our own cache; without it, Optuna adds its own when a study is made or loaded."""
    if not supported(relational=True):
        return storage
    from aimlhpo.storage.sql import Database  # as above; and it imports SQLAlchemy

    return Database(storage)


def _sqlite_file(url: str) -> Path:
    return Path(url.partition("://")[2].removeprefix("/").split("?")[0])


def sqlite_holds_studies(url: str) -> bool:
    path = _sqlite_file(url)
    if not path.exists() or path.stat().st_size == 0:
        return False
    try:
        with closing(sqlite3.connect(f"file:{quote(str(path))}?mode=ro", uri=True, timeout=CONNECT_TIMEOUT)) as file:
            return bool(file.execute("SELECT 1 FROM sqlite_master WHERE name = 'studies'").fetchone())
    except sqlite3.Error as error:
        raise StorageError(f"{path}: cannot be read as an SQLite database: {error}") from error


def open_server(url: str) -> BaseStorage:
    return _cached(RDBStorage(engine_url(url), engine_kwargs={"pool_pre_ping": True}))


def engine_url(url: str) -> str:
    """An expanded URL for SQLAlchemy: with the driver that aimlhpo's extra installs, unless the URL names one."""
    scheme, separator, rest = url.partition("://")
    kind = STORAGES.get(scheme)
    return (kind.driver if kind is not None and kind.driver else scheme) + separator + rest


def server_holds_studies(url: str) -> bool:
    import sqlalchemy

    address = sqlalchemy.make_url(engine_url(url))
    timeout = {"connect_timeout": CONNECT_TIMEOUT}
    engine = sqlalchemy.create_engine(address, connect_args=timeout, poolclass=sqlalchemy.NullPool)
    return sqlalchemy.inspect(engine).has_table("studies")


def open_redis(url: str) -> BaseStorage:
    return JournalStorage(JournalRedisBackend(url))


def redis_holds_studies(url: str) -> bool:
    import redis

    options = {"socket_connect_timeout": CONNECT_TIMEOUT, "socket_timeout": CONNECT_TIMEOUT}
    with closing(redis.Redis.from_url(url, **options)) as client:
        client.ping()
    return True


_POSTGRESQL = StorageKind(
    open_server, server_holds_studies, "postgresql://user@host/db", driver="postgresql+psycopg", extra="postgresql",
    longest_name=_LONGEST_NAME,
)  # fmt: skip
_REDIS = StorageKind(open_redis, redis_holds_studies, "redis://host:port", extra="redis")

STORAGES: dict[str, StorageKind] = {
    "journal": StorageKind(open_journal, journal_holds_studies, "journal, journal:///abs/path", file=_journal_file),
    "sqlite": StorageKind(open_sqlite, sqlite_holds_studies, "sqlite:///path.db", file=_sqlite_file),
    "postgresql": _POSTGRESQL,
    "postgres": replace(_POSTGRESQL, legal=""),
    "mysql": StorageKind(
        open_server,
        server_holds_studies,
        "mysql://user@host/db",
        driver="mysql+pymysql",
        extra="mysql",
        longest_name=_LONGEST_NAME,
    ),
    "redis": _REDIS,
    "rediss": replace(_REDIS, legal=""),
}
"""The kinds of storage, by the scheme of their URLs."""

_OTHER_DATABASE = StorageKind(open_server, server_holds_studies, longest_name=_LONGEST_NAME)


def legal_urls() -> str:
    """How the URLs of all kinds look, for messages."""
    return ", ".join(kind.legal for kind in STORAGES.values() if kind.legal)


def _kind_of(url: str) -> StorageKind:
    """The kind by the URL's scheme, which may name a driver: `postgresql+psycopg2://`."""
    return STORAGES.get(url.partition("://")[0].partition("+")[0], _OTHER_DATABASE)
