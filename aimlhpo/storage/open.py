"""Look at a storage without making or changing anything in it, and without waiting long for a server."""

from __future__ import annotations

import os
import re
import sqlite3
import warnings
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote

import optuna
from optuna.storages import BaseStorage, JournalStorage, RDBStorage

from aimlhpo.errors import ConfigError, Problem, StorageError
from aimlhpo.storage.journal import Journal, journal_backend

if TYPE_CHECKING:
    import sqlalchemy

_VARIABLE = re.compile(r"\$\{(\w+)\}")
_DRIVERS = {"postgresql": "postgresql+psycopg", "postgres": "postgresql+psycopg", "mysql": "mysql+pymysql"}
_EXTRAS = {"postgresql+psycopg": "postgresql", "mysql+pymysql": "mysql", "redis": "redis"}
_SQLITE_BUSY_TIMEOUT = 60  # seconds that a writer waits for another one


def expand(url: str) -> str:
    """Put the environment's values in place of `${NAME}`. Raises ConfigError naming a variable that is not set."""
    missing = [name for name in _VARIABLE.findall(url) if name not in os.environ]
    if missing:
        raise ConfigError(
            Problem("optuna: storage", f"the environment has no variable {missing[0]}", f"export {missing[0]}=...")
        )
    return _VARIABLE.sub(lambda match: os.environ[match.group(1)], url)


def file_of(url: str) -> Path | None:
    """The file that a sqlite or journal storage lies in; None for a server's."""
    scheme, _, rest = expand(url).partition("://")
    if scheme == "journal":
        return Path(rest)
    return Path(rest.removeprefix("/").split("?")[0]) if scheme.split("+")[0] == "sqlite" else None


def open_storage(url: str) -> BaseStorage:
    """Open the storage, making its file or tables where they are missing.

    Raises ConfigError for a URL that cannot mean a storage, StorageError where it cannot be reached.
    """
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    with told_as_storage_error(url), without_experimental_warnings():
        expanded = expand(url)
        scheme = expanded.partition("://")[0]
        if scheme == "journal":
            return _journal(expanded.removeprefix("journal://"))
        if scheme in ("redis", "rediss"):
            return JournalStorage(optuna.storages.journal.JournalRedisBackend(expanded))
        return _rdb(expanded)


def _journal(path: str) -> BaseStorage:
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    return Journal(journal_backend(Path(path)))


def _rdb(url: str) -> BaseStorage:
    from aimlhpo.storage.sql import Database

    if url.startswith("sqlite"):
        _make_private(file_of(url))
        storage = RDBStorage(url, engine_kwargs={"connect_args": {"timeout": _SQLITE_BUSY_TIMEOUT}})
    else:
        storage = RDBStorage(engine_url(url), engine_kwargs={"pool_pre_ping": True})
    return Database(storage)


def engine_url(url: str) -> str:
    """An expanded URL with the driver that we install for its database."""
    scheme, separator, rest = url.partition("://")
    return _DRIVERS.get(scheme, scheme) + separator + rest


def _make_private(path: Path | None) -> None:
    """Make the database file before SQLite does, so that its user alone can read it."""
    if path is not None:
        path.parent.mkdir(parents=True, exist_ok=True)
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))


@contextmanager
def without_experimental_warnings() -> Iterator[None]:
    """Keep to ourselves which of Optuna's calls it marks as experimental."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        yield


@contextmanager
def told_as_storage_error(url: str) -> Iterator[None]:
    """Say what failed without the URL's expanded secrets."""
    from sqlalchemy.exc import ArgumentError, NoSuchModuleError, SQLAlchemyError

    try:
        yield
    except (ArgumentError, NoSuchModuleError) as error:
        raise ConfigError(Problem("optuna: storage", f"{url!r} is no storage URL", LEGAL_URLS)) from error
    except ImportError as error:
        raise ConfigError(_missing_driver(url)) from error
    except (SQLAlchemyError, OSError, optuna.exceptions.StorageInternalError) as error:
        raise StorageError(f"the storage {url} cannot be opened: {_first_line(error, url)}") from error
    except Exception as error:
        if type(error).__module__.startswith("redis"):
            raise StorageError(f"the storage {url} cannot be opened: {_first_line(error, url)}") from error
        raise


LEGAL_URLS = "journal, journal:///abs/path, sqlite:///path.db, postgresql://user@host/db, mysql://user@host/db, redis://host:port"


def _missing_driver(url: str) -> Problem:
    scheme = url.partition("://")[0]
    extra = _EXTRAS.get(_DRIVERS.get(scheme, scheme))
    advice = f"pip install 'aimlhpo[{extra}]'" if extra else "install the driver that the URL names"
    return Problem("optuna: storage", f"the driver for {scheme}:// is not installed", advice)


def _first_line(error: BaseException, url: str) -> str:
    text = str(error.__cause__ or error).strip().splitlines()
    line = text[0] if text else type(error).__name__
    for name in _VARIABLE.findall(url):
        line = line.replace(os.environ[name], f"${{{name}}}") if os.environ[name] else line
    return line


def disconnect_storage(storage: BaseStorage) -> None:
    inner = getattr(storage, "_backend", storage)
    if isinstance(inner, RDBStorage):
        inner.engine.dispose()


CONNECT_TIMEOUT = 10  # seconds; a server on a busy machine may take some
_PASSWORD_OPTION = re.compile(r"([?&]password=)(?!\$\{)[^&]+")
_IS_VARIABLE = re.compile(r"\$\{\w+\}")


def holds_studies(url: str) -> bool:
    """Whether there is a storage with Optuna's tables or records at the URL; False where one would have to be made.

    Raises ConfigError for a URL that cannot mean a storage or lacks a driver, StorageError where nothing answers.
    """

    expanded = expand(url)
    path = file_of(expanded)
    if path is None:
        return _redis(url) if expanded.startswith(("redis:", "rediss:")) else _server(url)
    if not path.exists():
        return False
    return path.stat().st_size > 0 if expanded.startswith("journal:") else _sqlite(path)


def literal_password(url: str) -> str | None:
    """The URL with `${PASSWORD}` in place of a password that stands in it in plain text, or None."""
    scheme, _, rest = url.partition("://")
    if scheme.startswith(("sqlite", "journal")):
        return None
    user, colon, password = rest.rpartition("@")[0].partition(":")
    if colon and password and not _IS_VARIABLE.search(password):
        return url.replace(f"{user}:{password}@", f"{user}:${{PASSWORD}}@", 1)
    safe = _PASSWORD_OPTION.sub(r"\1${PASSWORD}", url)
    return safe if safe != url else None


def _sqlite(path: Path) -> bool:
    if path.stat().st_size == 0:
        return False
    try:
        with closing(sqlite3.connect(f"file:{quote(str(path))}?mode=ro", uri=True, timeout=CONNECT_TIMEOUT)) as file:
            return bool(file.execute("SELECT 1 FROM sqlite_master WHERE name = 'studies'").fetchone())
    except sqlite3.Error as error:
        raise StorageError(f"{path}: cannot be read as an SQLite database: {error}") from error


def _redis(url: str) -> bool:

    with told_as_storage_error(url):
        import redis

        options = {"socket_connect_timeout": CONNECT_TIMEOUT, "socket_timeout": CONNECT_TIMEOUT}
        with closing(redis.Redis.from_url(expand(url), **options)) as client:
            client.ping()
    return True


def _server(url: str) -> bool:

    with told_as_storage_error(url):
        import sqlalchemy

        timeout = {"connect_timeout": CONNECT_TIMEOUT}
        engine = sqlalchemy.create_engine(_parse(url), connect_args=timeout, poolclass=sqlalchemy.NullPool)
        return sqlalchemy.inspect(engine).has_table("studies")


def _parse(url: str) -> sqlalchemy.URL:
    import sqlalchemy

    text = engine_url(expand(url))
    try:
        return sqlalchemy.make_url(text)
    except ValueError as error:  # SQLAlchemy's word for a port that is no number
        raise ConfigError(Problem("optuna: storage", f"{url!r} is no storage URL", LEGAL_URLS)) from error
