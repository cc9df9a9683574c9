"""Look at a storage without making or changing anything in it, and without waiting long for a server."""

from __future__ import annotations

import re
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote

from aimlhpo.errors import ConfigError, Problem, StorageError

if TYPE_CHECKING:
    import sqlalchemy

CONNECT_TIMEOUT = 10  # seconds; a server on a busy machine may take some
_PASSWORD_OPTION = re.compile(r"([?&]password=)(?!\$\{)[^&]+")
_VARIABLE = re.compile(r"\$\{\w+\}")


def holds_studies(url: str) -> bool:
    """Whether there is a storage with Optuna's tables or records at the URL; False where one would have to be made.

    Raises ConfigError for a URL that cannot mean a storage or lacks a driver, StorageError where nothing answers.
    """
    from aimlhpo.storage import expand, file_of

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
    if colon and password and not _VARIABLE.search(password):
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
    from aimlhpo.storage import expand, told_as_storage_error

    with told_as_storage_error(url):
        import redis

        options = {"socket_connect_timeout": CONNECT_TIMEOUT, "socket_timeout": CONNECT_TIMEOUT}
        with closing(redis.Redis.from_url(expand(url), **options)) as client:
            client.ping()
    return True


def _server(url: str) -> bool:
    from aimlhpo.storage import told_as_storage_error

    with told_as_storage_error(url):
        import sqlalchemy

        timeout = {"connect_timeout": CONNECT_TIMEOUT}
        engine = sqlalchemy.create_engine(_parse(url), connect_args=timeout, poolclass=sqlalchemy.NullPool)
        return sqlalchemy.inspect(engine).has_table("studies")


def _parse(url: str) -> sqlalchemy.URL:
    import sqlalchemy

    from aimlhpo.storage import LEGAL_URLS, engine_url, expand

    text = engine_url(expand(url))
    try:
        return sqlalchemy.make_url(text)
    except ValueError as error:  # SQLAlchemy's word for a port that is no number
        raise ConfigError(Problem("optuna: storage", f"{url!r} is no storage URL", LEGAL_URLS)) from error
