"""Finished trials as plain records, read from the storage: what results, status and report show."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from optuna.trial import FrozenTrial, TrialState

from aimlhpo.taken import origin

ATTRIBUTE = "aimlhpo"
"""User attribute of a trial: everything aimlhpo knows of it beyond Optuna's own fields."""

CONSTRAINTS = "constraints"
"""Key in that attribute: the value of each constraint, by its text."""

OPTUNA_CONSTRAINT = "constraints:"
"""Beginning of the system attributes that Optuna reads a trial's constraints from, one for each."""


@dataclass(frozen=True)
class TrialRecord:
    """One trial; `seconds` is its training duration, `log` is relative to save_path.

    `params` are as the storage holds them. A trial that plain Optuna made has only Optuna's fields.
    """

    number: int
    state: str
    params: dict[str, Any]
    metrics: dict[str, Any]
    seconds: float | None = None
    worker: str | None = None
    device: str | None = None
    log: str | None = None
    log_offset: int | None = None
    cause: str | None = None
    error: str | None = None
    updates: dict[str, Any] = field(default_factory=dict)
    unread: tuple[str, ...] = ()
    constraints: dict[str, float] = field(default_factory=dict)


def read_record(trial: FrozenTrial, metric_names: Sequence[str]) -> TrialRecord:
    """The record of one trial; `metric_names` name Optuna's values where the trial itself does not."""
    known = trial.user_attrs.get(ATTRIBUTE)
    known = known if isinstance(known, Mapping) else {}
    return TrialRecord(
        number=trial.number,
        state=trial.state.name,
        params=dict(trial.params),
        metrics=_metrics(trial, known, metric_names),
        seconds=_seconds(trial, known),
        worker=known.get("worker"),
        device=known.get("device"),
        log=known.get("log"),
        log_offset=known.get("log_offset"),
        cause=known.get("cause") or origin(trial),
        error=known.get("error"),
        updates=dict(known.get("updates") or {}),
        unread=tuple(known.get("unread") or ()),
        constraints=trial.constraints,
    )


def finished_records(trials: Iterable[FrozenTrial], metric_names: Sequence[str]) -> list[TrialRecord]:
    """The records of all COMPLETE, PRUNED and FAIL trials, by number."""
    done = (trial for trial in trials if trial.state.is_finished())
    return sorted((read_record(trial, metric_names) for trial in done), key=lambda record: record.number)


def _metrics(trial: FrozenTrial, known: Mapping[str, Any], names: Sequence[str]) -> dict[str, Any]:
    returned = dict(known.get("metrics") or {})
    values = dict(zip(names, trial.values or (), strict=False))
    # Optuna's own values come last: they are what the study was judged by.
    return {**returned, **values} if trial.state != TrialState.FAIL else {**values, **returned}


def _seconds(trial: FrozenTrial, known: Mapping[str, Any]) -> float | None:
    seconds = known.get("seconds")
    if seconds is not None:
        return float(seconds)
    return trial.duration.total_seconds() if trial.duration is not None else None
