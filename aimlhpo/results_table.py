"""The text of results.csv: a header, and one line for each finished trial."""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from optuna.trial import FrozenTrial

from aimlhpo.constraints import holds
from aimlhpo.records import TrialRecord, finished_records

if TYPE_CHECKING:
    from aimlhpo.space import SearchSpace

FIRST_COLUMNS = ("number", "state", "duration", "worker", "device")
LAST_COLUMN = "cause"


class ResultsTable:
    """Makes each trial's line once, as a trial that is finished never changes; a new column makes all of them anew."""

    def __init__(self, space: SearchSpace, metrics: Sequence[str]) -> None:
        self._space, self._metrics = space, metrics
        self._columns = self._declared = Columns(tuple(p.name for p in space.parameters), tuple(metrics))
        self._lines: dict[int, str] = {}

    def __len__(self) -> int:
        return len(self._lines)

    def text(self, trials: Iterable[FrozenTrial]) -> str:
        """The whole CSV of the study, all of whose trials are given."""
        finished = [trial for trial in trials if trial.state.is_finished()]
        records = finished_records((t for t in finished if t.number not in self._lines), self._metrics)
        if any(self._columns.lacks(record, self._values(record)) for record in records):
            records = finished_records(finished, self._metrics)
            self._columns = self._declared.joined(records, [self._values(record) for record in records])
        self._lines |= {record.number: self._line(record) for record in records}
        return "".join([_csv(self._columns.header()), *(self._lines[number] for number in sorted(self._lines))])

    def _values(self, record: TrialRecord) -> dict[str, Any]:
        return self._space.values(record.params)

    def _line(self, record: TrialRecord) -> str:
        return _csv(self._columns.row(record, self._values(record)))


@dataclass(frozen=True)
class Columns:
    """Names of the parameters, metrics and constraints; those that the YAML declares come first."""

    parameters: tuple[str, ...]
    metrics: tuple[str, ...]
    constraints: tuple[str, ...] = ()

    def lacks(self, record: TrialRecord, values: Mapping[str, Any]) -> bool:
        """Whether the trial has something that no column is for."""
        pairs = ((values, self.parameters), (record.metrics, self.metrics), (record.constraints, self.constraints))
        return any(not found.keys() <= set(names) for found, names in pairs)

    def joined(self, records: Sequence[TrialRecord], values: Sequence[Mapping[str, Any]]) -> Columns:
        """These columns, and those that all the study's trials need besides."""
        return Columns(
            _names(values, self.parameters),
            _names([record.metrics for record in records], self.metrics),
            _names([record.constraints for record in records], self.constraints),
        )

    def header(self) -> list[str]:
        """Column names; one that would appear twice is told apart as `params_...` or `metrics_...`."""
        judged = ["feasible", *(f"constraint: {text}" for text in self.constraints)] if self.constraints else []
        fixed = {*FIRST_COLUMNS, *judged, LAST_COLUMN}
        parameters = [f"params_{name}" if name in fixed else name for name in self.parameters]
        taken = fixed | set(parameters)
        metrics = [f"metrics_{name}" if name in taken else name for name in self.metrics]
        return [*FIRST_COLUMNS, *parameters, *metrics, *judged, LAST_COLUMN]

    def row(self, record: TrialRecord, values: Mapping[str, Any]) -> list[Any]:
        fixed = [record.number, record.state, record.seconds, record.worker, record.device]
        chosen = [_cell(values[name]) if name in values else None for name in self.parameters]
        returned = [_cell(record.metrics[name]) if name in record.metrics else None for name in self.metrics]
        return [*fixed, *chosen, *returned, *self._judged(record), record.cause]

    def _judged(self, record: TrialRecord) -> list[Any]:
        """Whether the trial keeps the study's constraints, and the value of each: blank where it has none."""
        if not self.constraints:
            return []
        known = record.constraints
        return [holds(known) if known else None, *(known.get(text) for text in self.constraints)]


def _names(found: Iterable[Mapping[str, Any]], known: Collection[str]) -> tuple[str, ...]:
    """The known names, then all others in the order in which trials brought them (by name within one)."""
    names = dict.fromkeys(known)
    for mapping in found:
        names.update(dict.fromkeys(sorted(mapping.keys() - names.keys())))
    return tuple(names)


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
