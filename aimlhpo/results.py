"""results.csv: one row per finished trial, rebuilt from the storage whenever it is written."""

from __future__ import annotations

import csv
import io
import json
import logging
import math
import os
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from optuna.exceptions import StorageInternalError

from aimlhpo.atomic import replace_file
from aimlhpo.best import write_best
from aimlhpo.constraints import holds
from aimlhpo.errors import AimlhpoError
from aimlhpo.locks import open_lock_file, try_lock
from aimlhpo.paths import StudyPaths
from aimlhpo.records import TrialRecord, finished_records
from aimlhpo.space import SearchSpace

if TYPE_CHECKING:
    import optuna

    from aimlhpo.config import Config

logger = logging.getLogger(__name__)

INTERVAL = 30.0  # seconds between two rewrites while trials run
MOST_SHARE = 0.02  # of an agent's time, where writing takes long
LOCK_PATIENCE = 10.0  # seconds to wait for another writer
FIRST_COLUMNS = ("number", "state", "duration", "worker", "device")
LAST_COLUMN = "cause"


@dataclass(frozen=True)
class ResultFiles:
    """What was written: the CSV, its number of rows, and best.yml first among `best` (empty: no COMPLETE trial)."""

    results: Path
    rows: int
    best: tuple[Path, ...]


def write_results(study: optuna.Study, config: Config) -> ResultFiles:
    """Write results.csv and best.yml from the storage. Raises OSError, ConfigError, Optuna's storage errors."""
    with _turn(config.paths, LOCK_PATIENCE):
        return _write_results(study, config)


def _write_results(study: optuna.Study, config: Config) -> ResultFiles:
    space = SearchSpace.from_config(config)
    records = finished_records(study.get_trials(deepcopy=False), config.optuna.metric)
    replace_file(config.paths.results, csv_text(records, space, config.optuna.metric))
    return ResultFiles(config.paths.results, len(records), write_best(study, config, space))


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


def csv_text(records: Sequence[TrialRecord], space: SearchSpace, metric_names: Sequence[str]) -> str:
    """The whole CSV. Declared parameters and metrics come first, in the order of the YAML file."""
    rows = [(record, space.values(record.params)) for record in records]
    parameters = _names((values for _, values in rows), [parameter.name for parameter in space.parameters])
    metrics = _names((record.metrics for record in records), metric_names)
    constraints = _names((record.constraints for record in records), ())
    header = _headers(parameters, metrics, constraints)
    cells = [_row(record, values, parameters, metrics, constraints) for record, values in rows]
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerows([header, *cells])
    return buffer.getvalue()


def _names(found: Iterable[Mapping[str, Any]], declared: Sequence[str]) -> list[str]:
    """The declared names, then all others in the order in which trials brought them (by name within one)."""
    names = dict.fromkeys(declared)
    for mapping in found:
        names.update(dict.fromkeys(sorted(mapping.keys() - names.keys())))
    return list(names)


def _headers(parameters: Sequence[str], metrics: Sequence[str], constraints: Sequence[str]) -> list[str]:
    """Column names; one that would appear twice is told apart as `params_...` or `metrics_...`."""
    judged = ["feasible", *(f"constraint: {text}" for text in constraints)] if constraints else []
    fixed = {*FIRST_COLUMNS, *judged, LAST_COLUMN}
    parameter_columns = [f"params_{name}" if name in fixed else name for name in parameters]
    taken = fixed | set(parameter_columns)
    metric_columns = [f"metrics_{name}" if name in taken else name for name in metrics]
    return [*FIRST_COLUMNS, *parameter_columns, *metric_columns, *judged, LAST_COLUMN]


def _row(
    record: TrialRecord,
    values: Mapping[str, Any],
    parameters: Sequence[str],
    metrics: Sequence[str],
    constraints: Sequence[str],
) -> list[Any]:
    fixed = [record.number, record.state, record.seconds, record.worker, record.device]
    chosen = [_cell(values[name]) if name in values else None for name in parameters]
    returned = [_cell(record.metrics[name]) if name in record.metrics else None for name in metrics]
    return [*fixed, *chosen, *returned, *_judged(record, constraints), record.cause]


def _judged(record: TrialRecord, constraints: Sequence[str]) -> list[Any]:
    """Whether the trial keeps the study's constraints, and the value of each: blank where it has none."""
    if not constraints:
        return []
    known = record.constraints
    return [holds(known) if known else None, *(known.get(text) for text in constraints)]


def _cell(value: Any) -> Any:
    """A value as text that reads back: blanks are kept for what a trial does not have."""
    if value is None:
        return "None"
    if isinstance(value, float) and math.isnan(value):
        return "nan"
    return json.dumps(value) if isinstance(value, (list, tuple, dict)) else value


class ResultsWriter:
    """Keeps results.csv and best.yml fresh while trials run; several agents may each have one.

    Both files are derived, so a failed `maybe_write` is told once and tried again later: it never stops training.
    """

    def __init__(self, study: optuna.Study, config: Config, interval: float = INTERVAL) -> None:
        self._study = study
        self._config = config
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
        """Write now. Raises what `write_results` raises."""
        files = write_results(self._study, self._config)
        self._seen = self._stamp()
        return files

    def _try_write(self) -> bool:
        begun = time.monotonic()
        try:
            with _turn(self._config.paths, patience=0) as ours:
                if not ours:
                    return False
                _write_results(self._study, self._config)
            self._seen = self._stamp()
            self._told = False
        except (OSError, StorageInternalError, AimlhpoError) as error:
            if not self._told:
                logger.warning("cannot write %s yet, will try again: %s", self._config.paths.results, error)
            self._told = True
            return False
        now = time.monotonic()
        self._due = now + max(self._interval, (now - begun) / MOST_SHARE)
        return True

    def _stamp(self) -> tuple[int, int] | None:
        """Which version of results.csv is there; each replacement is a new file."""
        try:
            status = self._config.paths.results.stat()
        except OSError:
            return None
        return status.st_mtime_ns, status.st_ino
