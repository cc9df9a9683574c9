"""results.csv: a header, and one line for each finished trial, rebuilt from the storage whenever it is written."""

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
from optuna.trial import FrozenTrial

from aimlhpo.config.paths import StudyPaths, replace_file
from aimlhpo.errors import AimlhpoError
from aimlhpo.results.best import write_best
from aimlhpo.search.queues import confirmed_study
from aimlhpo.space.constraints import holds
from aimlhpo.space.search_space import SearchSpace
from aimlhpo.storage.locks import open_lock_file, try_lock
from aimlhpo.storage.trials import PEAKS, TrialRecord, finished_records

if TYPE_CHECKING:
    import optuna

    from aimlhpo.config.schema import Config

logger = logging.getLogger(__name__)

FIRST_COLUMNS = ("number", "state", "duration", "worker", "device")
SECTION_COLUMN = "section"
CONFIRMS_COLUMNS = ("confirms", "seed")
LAST_COLUMN = "cause"
INTERVAL = 30.0  # seconds between two rewrites while trials run
MOST_SHARE = 0.02  # of an agent's time, where writing takes long
LOCK_TIMEOUT = 10.0  # seconds to wait for another writer


@dataclass(frozen=True)
class ResultFiles:
    """What was written: the CSV, its number of rows, and best.yml first among `best` (empty: no COMPLETE trial)."""

    results: Path
    rows: int
    best: tuple[Path, ...]


def write_results(study: optuna.Study, config: Config) -> ResultFiles:
    """Write results.csv and best.yml from the storage. Raises OSError, ConfigError, Optuna's storage errors."""
    with _writers_lock(config.paths, LOCK_TIMEOUT):
        files = _write_files(study, config, ResultsTable(config.space, config.optuna.metric))
    _write_confirmed(study, config)
    return files


class ResultsWriter:
    """Keeps results.csv and best.yml fresh while trials run; several agents may each have one.

    Both files are derived, so a failed `maybe_write` is logged once and tried again later: it never stops training.
    """

    def __init__(self, study: optuna.Study, config: Config, interval: float = INTERVAL) -> None:
        self._study, self._config, self._paths = study, config, config.paths
        self._table = ResultsTable(config.space, config.optuna.metric)
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
        begun = time.monotonic()
        try:
            with _writers_lock(self._paths, timeout=0) as locked:
                if not locked:
                    return False
                _write_files(self._study, self._config, self._table)
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

    def write(self) -> ResultFiles:
        """Write now, all of it anew. Raises what `write_results` raises."""
        files = write_results(self._study, self._config)
        self._seen = self._stamp()
        return files

    def _stamp(self) -> tuple[int, int] | None:
        """Which version of results.csv is there; each replacement is a new file."""
        try:
            status = self._paths.results.stat()
        except OSError:
            return None
        return status.st_mtime_ns, status.st_ino


def _write_files(study: optuna.Study, config: Config, table: ResultsTable) -> ResultFiles:
    results = config.paths.results
    replace_file(results, table.text(study.get_trials(deepcopy=False)))
    return ResultFiles(results, len(table), write_best(study, config, config.space))


def _write_confirmed(confirmation: optuna.Study, config: Config) -> None:
    """Where the study confirms another one, let that one's best.yml follow what has been found."""
    try:
        confirmed = confirmed_study(confirmation, config)
        if confirmed is not None:
            study, of_study = confirmed
            with _writers_lock(of_study.paths, LOCK_TIMEOUT):
                write_best(study, of_study, of_study.space)
    except (
        AimlhpoError,
        KeyError,
        OSError,
    ) as error:  # it is gone, or cannot be read
        logger.warning("best.yml of the study that is confirmed could not be written: %s", error)


@contextmanager
def _writers_lock(paths: StudyPaths, timeout: float) -> Iterator[bool]:
    """One writer at a time, so that nobody replaces newer results by older ones; yields whether the lock is held.

    A holder may be stopped for hours: after `timeout` seconds the body runs all the same.
    """
    paths.state.mkdir(parents=True, exist_ok=True, mode=0o700)
    descriptor = open_lock_file(paths.state / "results.lock")
    deadline = time.monotonic() + timeout
    try:
        while not (held := try_lock(descriptor)) and time.monotonic() < deadline:
            time.sleep(0.05)
        yield held
    finally:
        os.close(descriptor)


class ResultsTable:
    """Makes each trial's line once, as a trial that is finished never changes; a new column makes all of them anew."""

    def __init__(self, space: SearchSpace, metrics: Sequence[str]) -> None:
        self._space, self._metrics = space, metrics
        self._columns = self._declared = Columns.declared(space, metrics)
        self._lines: dict[int, str] = {}

    def __len__(self) -> int:
        return len(self._lines)

    def text(self, trials: Iterable[FrozenTrial]) -> str:
        """The whole CSV of the study, of which all trials are given."""
        finished = [trial for trial in trials if trial.state.is_finished()]
        records = finished_records((t for t in finished if t.number not in self._lines), self._metrics)
        if any(self._columns.lacks(record, self._values(record)) for record in records):
            records = finished_records(finished, self._metrics)
            self._columns = self._declared.joined(records, [self._values(record) for record in records])
        for record in records:
            self._lines[record.number] = _csv(self._columns.row(record, self._values(record)))
        return "".join([_csv(self._columns.header()), *(self._lines[number] for number in sorted(self._lines))])

    def _values(self, record: TrialRecord) -> dict[str, Any]:
        return self._space.values(record.params)


@dataclass(frozen=True)
class Columns:
    """Names of the parameters, metrics and constraints, those that the YAML declares first; and of the known peaks."""

    parameters: tuple[str, ...]
    metrics: tuple[str, ...]
    constraints: tuple[str, ...] = ()
    confirms: bool = False
    """Whether the study confirms another one: its trials have a trial of that study, and a seed."""
    section: bool = False
    """Whether its jobs are of several sections of `slurm`."""
    peaks: tuple[str, ...] = ()

    @classmethod
    def declared(cls, space: SearchSpace, metrics: Sequence[str]) -> Columns:
        """The columns that the YAML files ask for."""
        return cls(tuple(parameter.name for parameter in space.parameters), tuple(metrics))

    def lacks(self, record: TrialRecord, values: Mapping[str, Any]) -> bool:
        """Whether the trial has something that no column is for."""
        pairs = [(values, self.parameters), (record.metrics, self.metrics), (record.constraints, self.constraints)]
        pairs.append((record.peaks, self.peaks))
        if (record.confirms is not None and not self.confirms) or (record.section is not None and not self.section):
            return True
        return any(not found.keys() <= set(names) for found, names in pairs)

    def joined(self, records: Sequence[TrialRecord], values: Sequence[Mapping[str, Any]]) -> Columns:
        """These columns, and then all others in the order in which trials brought them (by name within one)."""

        def joined(known: tuple[str, ...], found: Iterable[Mapping[str, Any]]) -> tuple[str, ...]:
            names = dict.fromkeys(known)
            for mapping in found:
                names.update(dict.fromkeys(sorted(mapping.keys() - names.keys())))
            return tuple(names)

        return Columns(
            joined(self.parameters, values),
            joined(self.metrics, (record.metrics for record in records)),
            joined(self.constraints, (record.constraints for record in records)),
            self.confirms or any(record.confirms is not None for record in records),
            self.section or any(record.section is not None for record in records),
            tuple(peak for peak in PEAKS if peak in self.peaks or any(peak in record.peaks for record in records)),
        )

    def header(self) -> list[str]:
        """Column names; one that would appear twice is told apart as `params_...` or `metrics_...`."""
        judged = ["feasible", *(f"constraint: {text}" for text in self.constraints)] if self.constraints else []
        first = [*FIRST_COLUMNS, *([SECTION_COLUMN] if self.section else ())]
        first += CONFIRMS_COLUMNS if self.confirms else ()
        last = [*self.peaks, LAST_COLUMN]
        fixed = {*first, *judged, *last}
        parameters = [f"params_{name}" if name in fixed else name for name in self.parameters]
        taken = fixed | set(parameters)
        metrics = [f"metrics_{name}" if name in taken else name for name in self.metrics]
        return [*first, *parameters, *metrics, *judged, *last]

    def row(self, record: TrialRecord, values: Mapping[str, Any]) -> list[Any]:
        fixed = [record.number, record.state, record.seconds, record.worker, record.device]
        fixed += [record.section] if self.section else ()
        fixed += (record.confirms or (None, None)) if self.confirms else ()
        chosen = [_cell(values[name]) if name in values else None for name in self.parameters]
        returned = [_cell(record.metrics[name]) if name in record.metrics else None for name in self.metrics]
        judged: list[Any] = []
        if self.constraints:  # whether the trial keeps them, and the value of each: blank where it has none
            known = record.constraints
            judged = [holds(known) if known else None, *(known.get(text) for text in self.constraints)]
        return [*fixed, *chosen, *returned, *judged, *map(record.peaks.get, self.peaks), record.cause]


def _cell(value: Any) -> Any:
    """A value as text that reads back: blanks are kept for what a trial does not have."""
    if value is None:
        return "None"
    if isinstance(value, float) and math.isnan(value):
        return "nan"
    return json.dumps(value) if isinstance(value, (list, tuple, dict)) else value


def _csv(cells: Sequence[Any]) -> str:
    buffer = io.StringIO()
    csv.writer(buffer, lineterminator="\n").writerow(cells)
    return buffer.getvalue()
