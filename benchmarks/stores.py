"""Storages for the benchmark: empty ones, and copies of a study with many finished trials."""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
from contextlib import ExitStack
from functools import cache
from pathlib import Path
from typing import Any, Self

from tests.servers import PostgreSQL

KINDS = ("sqlite", "journal", "postgresql")


class Stores:
    """A new storage for every cell, all of them gone with the `with` block.

    A study of many finished trials is written once for each kind, and copied for every cell.
    """

    def __init__(self) -> None:
        self._stack = ExitStack()
        self._made: dict[tuple[str, int, int], str] = {}

    def __enter__(self) -> Self:
        self.folder = Path(self._stack.enter_context(tempfile.TemporaryDirectory(prefix="aimlhpo-bench-")))
        return self

    def __exit__(self, *details: Any) -> None:
        self._server.cache_clear()
        self._stack.close()

    def url(self, kind: str, finished: int, reports: int) -> str:
        """The URL of a storage that nobody has used; with `finished` trials of `reports` reports in study s."""
        if finished == 0:
            return self._empty(kind)
        origin = self._made.get((kind, finished, reports)) or self._fill(kind, finished, reports)
        if kind == "postgresql":
            template = origin.rpartition("/")[2]
            server = self._server()
            server.databases += 1
            name = f"copy{server.databases}"
            server.execute(f"CREATE DATABASE {name} TEMPLATE {template}")
            return server.url(name)
        copy = self._file(kind)
        shutil.copy(f"/{origin.partition('://')[2].lstrip('/')}", copy)
        return self._file_url(kind, copy)

    def _fill(self, kind: str, finished: int, reports: int) -> str:
        url = self._empty(kind)
        # In a process of its own: a database is copied only when nobody is connected to it.
        folder = tempfile.mkdtemp(dir=self.folder)
        command = [sys.executable, "-m", "benchmarks.big_study", folder, url]
        subprocess.run([*command, f"--trials={finished}", f"--reports={reports}"], check=True, capture_output=True)
        shutil.rmtree(folder)  # a copy of a study is refused where the directory that this one was run from is there
        self._made[kind, finished, reports] = url
        return url

    def _empty(self, kind: str) -> str:
        return self._server().url() if kind == "postgresql" else self._file_url(kind, self._file(kind))

    def _file(self, kind: str) -> Path:
        return Path(tempfile.mkdtemp(dir=self.folder)) / f"study.{kind}"

    def _file_url(self, kind: str, file: Path) -> str:
        return f"{kind}:///{file}" if kind == "sqlite" else f"{kind}://{file}"

    @cache  # noqa: B019 -- cleared with the block
    def _server(self) -> PostgreSQL:
        return self._stack.enter_context(PostgreSQL(lasting=True))
