"""results.csv: one row per finished trial, rebuilt from the storage whenever it is written."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from optuna.exceptions import StorageInternalError

from aimlhpo.atomic import replace_file
from aimlhpo.best import write_best
from aimlhpo.errors import AimlhpoError
from aimlhpo.locks import open_lock_file, try_lock
from aimlhpo.paths import StudyPaths
from aimlhpo.results_table import ResultsTable
from aimlhpo.space import SearchSpace

if TYPE_CHECKING:
    import optuna

    from aimlhpo.config import Config

logger = logging.getLogger(__name__)

INTERVAL = 30.0  # seconds between two rewrites while trials run
MOST_SHARE = 0.02  # of an agent's time, where writing takes long
LOCK_PATIENCE = 10.0  # seconds to wait for another writer


@dataclass(frozen=True)
class ResultFiles:
    """What was written: the CSV, its number of rows, and best.yml first among `best` (empty: no COMPLETE trial)."""

    results: Path
    rows: int
    best: tuple[Path, ...]


def write_results(study: optuna.Study, config: Config) -> ResultFiles:
    """Write results.csv and best.yml from the storage. Raises OSError, ConfigError, Optuna's storage errors."""
    with _turn(config.paths, LOCK_PATIENCE):
        return _Files(study, config).write()


class _Files:
    """results.csv and best.yml of one study, to be written time and again."""

    def __init__(self, study: optuna.Study, config: Config) -> None:
        self._study, self._config = study, config
        self._space = SearchSpace.from_config(config)
        self._table = ResultsTable(self._space, config.optuna.metric)

    def write(self) -> ResultFiles:
        results = self._config.paths.results
        replace_file(results, self._table.text(self._study.get_trials(deepcopy=False)))
        return ResultFiles(results, len(self._table), write_best(self._study, self._config, self._space))


@contextmanager
def _turn(paths: StudyPaths, patience: float) -> Iterator[bool]:
    """One writer at a time, so that nobody replaces newer results by older ones; yields whether it is our turn.

    A holder may be stopped for hours: after `patience` seconds the body runs all the same.
    """
    paths.state.mkdir(parents=True, exist_ok=True, mode=0o700)
    path = paths.state / "results.lock"
    descriptor = open_lock_file(path)
    try:
        yield _wait_for(descriptor, patience)
    finally:
        os.close(descriptor)


def _wait_for(descriptor: int, patience: float) -> bool:
    deadline = time.monotonic() + patience
    while not try_lock(descriptor):
        if time.monotonic() >= deadline:
            return False
        time.sleep(0.05)
    return True


class ResultsWriter:
    """Keeps results.csv and best.yml fresh while trials run; several agents may each have one.

    Both files are derived, so a failed `maybe_write` is told once and tried again later: it never stops training.
    """

    def __init__(self, study: optuna.Study, config: Config, interval: float = INTERVAL) -> None:
        self._study, self._config, self._paths = study, config, config.paths
        self._files = _Files(study, config)
        self._interval = interval
        self._due = time.monotonic() + interval
        self._seen = self._stamp()
        self._told = False

    def maybe_write(self) -> bool:
        """Write if `interval` seconds have passed and no other agent has done it meanwhile; True if written."""
        if time.monotonic() < self._due:
            return False
        self._due = time.monotonic() + self._interval
        if self._stamp() != self._seen:
            self._seen = self._stamp()
            return False
        return self._try_write()

    def write(self) -> ResultFiles:
        """Write now, all of it anew. Raises what `write_results` raises."""
        files = write_results(self._study, self._config)
        self._seen = self._stamp()
        return files

    def _try_write(self) -> bool:
        begun = time.monotonic()
        try:
            with _turn(self._paths, patience=0) as ours:
                if not ours:
                    return False
                self._files.write()
            self._seen = self._stamp()
            self._told = False
        except (OSError, StorageInternalError, AimlhpoError) as error:
            if not self._told:
                logger.warning("cannot write %s yet, will try again: %s", self._paths.results, error)
            self._told = True
            return False
        now = time.monotonic()
        self._due = now + max(self._interval, (now - begun) / MOST_SHARE)
        return True

    def _stamp(self) -> tuple[int, int] | None:
        """Which version of results.csv is there; each replacement is a new file."""
        try:
            status = self._paths.results.stat()
        except OSError:
            return None
        return status.st_mtime_ns, status.st_ino
