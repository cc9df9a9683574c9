"""Look at a storage without making or changing anything in it, and without waiting long for a server."""

from __future__ import annotations

import re
import sqlite3
from contextlib import closing
from pathlib import Path
from urllib.parse import quote

from aimlhpo.errors import StorageError

CONNECT_TIMEOUT = 3  # seconds
_VARIABLE = re.compile(r"\$\{\w+\}")


def holds_studies(url: str) -> bool:
    """Whether there is a storage with Optuna's tables or records at the URL; False where one would have to be made.

    Raises ConfigError for a URL that cannot mean a storage or lacks a driver, StorageError where nothing answers.
    """
    from aimlhpo.storage import file_of

    path = file_of(url)
    if path is None:
        return _redis(url) if url.startswith(("redis:", "rediss:")) else _server(url)
    if not path.exists():
        return False
    return path.stat().st_size > 0 if url.startswith("journal:") else _sqlite(path)


def literal_password(url: str) -> str | None:
    """The URL with `${PASSWORD}` in place of a password that stands in it in plain text, or None."""
    head, separator, _ = url.rpartition("@")
    user, colon, password = head.partition("://")[2].partition(":")
    if not separator or not colon or not password or _VARIABLE.search(password):
        return None
    return url.replace(f"{user}:{password}@", f"{user}:${{PASSWORD}}@", 1)


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
    from aimlhpo.storage import engine_url, expand, told_as_storage_error

    with told_as_storage_error(url):
        import sqlalchemy

        timeout = {"connect_timeout": CONNECT_TIMEOUT}
        engine = sqlalchemy.create_engine(engine_url(expand(url)), connect_args=timeout, poolclass=sqlalchemy.NullPool)
        return sqlalchemy.inspect(engine).has_table("studies")
