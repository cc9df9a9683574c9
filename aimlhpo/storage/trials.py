"""What is read out of a study's trials: records for people, numbers by state, and how long they take.

Trials may have been imported from another study (`IMPORTED`); everything that counts the study's own leaves them out.

TrialRecord    one trial as results, status and report show it
LongestTrial   how long the trials to come may take
selected       a study of chosen trials that can only be read, for Optuna's own functions that show and rank trials
"""

from __future__ import annotations

import copy
from collections.abc import Container, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, NoReturn

import optuna
from optuna.storages import BaseStorage
from optuna.trial import FrozenTrial, TrialState

from aimlhpo.errors import StudyError
from aimlhpo.space.constraints import holds
from aimlhpo.storage.attributes import record_of, study_attributes
from aimlhpo.storage.base import BY_SECTION, SECTION, Counts, ForwardingStorage, count_overview, overview_from

CONSTRAINTS = "constraints"
"""Key in a trial's record: the value of each constraint, by its text."""

OPTUNA_CONSTRAINT = "constraints:"
"""Beginning of the system attributes that Optuna reads a trial's constraints from, one for each."""

PEAKS = ("peak_memory_mb", "peak_gpu_memory_mb")
"""Keys in a trial's record: the most memory that it took, in MiB, of the host and of a GPU; absent where unknown."""

IMPORTED = "aimlhpo:taken"
"""System attribute of an imported trial: where it was run, {"source": ..., "study": ..., "number": ...}."""

CONFIRMED = "aimlhpo:confirms"
"""System attribute of a trial that trains another study's configuration again: {"trial": that study's number of it,
"repeat": from 0, "seed": the trial's own seed, "keys": where the model configuration has it, too}."""

IMPORT_NOTES = "aimlhpo:warm_start"
"""Attribute of the study: what was imported, by source; written before the first trial is."""


# --- imported trials ---


def is_own(trial: FrozenTrial) -> bool:
    """Whether the study itself has run the trial, or will."""
    return IMPORTED not in trial.system_attrs


def imported_trials(trials: Sequence[FrozenTrial]) -> list[FrozenTrial]:
    return [trial for trial in trials if not is_own(trial)]


def origin(trial: FrozenTrial) -> str | None:
    """Where a trial was imported from, in words; None for the study's own."""
    mark = trial.system_attrs.get(IMPORTED)
    return f"taken over from trial {mark['number']} of {mark['study']}" if mark else None


def notes(study: optuna.Study) -> dict[str, Any]:
    """What the study has imported, by source."""
    return dict(study_attributes(study).get(IMPORT_NOTES) or {})


def count_imported(study: optuna.Study) -> tuple[int, int]:
    """How many COMPLETE and PRUNED trials were imported; the trials are only read if there may be any."""
    if not notes(study):
        return 0, 0
    states = [trial.state for trial in imported_trials(study.get_trials(deepcopy=False))]
    return states.count(TrialState.COMPLETE), states.count(TrialState.PRUNED)


# --- records ---


@dataclass(frozen=True)
class TrialRecord:
    """One trial; `seconds` is its training duration, `gpu_seconds` the same times its GPUs.

    `section` is that of `slurm` which it ended in, of several, and `by_section` what it took in each of them. `peaks`
    are those of `PEAKS` that are known. `log` is relative to save_path. `confirms` is the trial of the study that is
    confirmed, and the training's seed. `params` are as the storage holds them. A trial that plain Optuna made has only
    Optuna's fields.
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
    gpu_seconds: float = 0.0
    attempts: int = 1
    confirms: tuple[int, int] | None = None
    section: str | None = None
    by_section: dict[str, dict[str, float]] = field(default_factory=dict)
    peaks: dict[str, float] = field(default_factory=dict)


def read_record(trial: FrozenTrial, metric_names: Sequence[str]) -> TrialRecord:
    """The record of one trial; `metric_names` name Optuna's values where the trial itself does not."""
    known = record_of(trial)
    returned, values = known.get("metrics") or {}, dict(zip(metric_names, trial.values or (), strict=False))
    seconds = known.get("seconds")
    if seconds is None and trial.duration is not None:
        seconds = trial.duration.total_seconds()
    return TrialRecord(
        number=trial.number,
        state=trial.state.name,
        params=dict(trial.params),
        # Optuna's own values have the last word: they are what the study was judged by.
        metrics={**returned, **values} if trial.state != TrialState.FAIL else {**values, **returned},
        seconds=None if seconds is None else float(seconds),
        worker=known.get("worker"),
        device=known.get("device"),
        log=known.get("log"),
        log_offset=known.get("log_offset"),
        cause=known.get("cause") or origin(trial),
        error=known.get("error"),
        updates=dict(known.get("updates") or {}),
        unread=tuple(known.get("unread") or ()),
        constraints=trial.constraints,
        gpu_seconds=float(known.get("gpu_seconds") or 0.0),
        attempts=int(known.get("attempts") or 1),
        confirms=(mark["trial"], mark["seed"]) if (mark := trial.system_attrs.get(CONFIRMED)) else None,
        section=known.get(SECTION),
        by_section=dict(known.get(BY_SECTION) or {}),
        peaks={name: known[name] for name in PEAKS if name in known},
    )


def finished_records(trials: Iterable[FrozenTrial], metric_names: Sequence[str]) -> list[TrialRecord]:
    """The records of all COMPLETE, PRUNED and FAIL trials, by number."""
    done = (trial for trial in trials if trial.state.is_finished())
    return sorted((read_record(trial, metric_names) for trial in done), key=lambda record: record.number)


# --- numbers by state ---


def count(trials: Iterable[FrozenTrial]) -> Counts:
    """Count the study's own trials by state.

    A RUNNING trial that no agent claimed belongs to somebody else and is left out, as are imported ones.
    """
    return count_overview(overview_from(list(filter(is_own, trials))))


def count_feasible(trials: Iterable[FrozenTrial]) -> int:
    """The study's own complete trials that keep every constraint."""
    complete = (trial for trial in trials if trial.state == TrialState.COMPLETE and is_own(trial))
    return sum(holds(trial.constraints) for trial in complete)


class LongestTrial:
    """Finds out how long the longest complete trial took; each trial is looked at once, however often it is shown.

    With a `section` of `slurm`, only those that have ended in it count, with what they took there: other GPUs are
    faster, or slower.
    """

    def __init__(self, section: str | None = None) -> None:
        self._section = section
        self._seconds = 0.0
        self._seen: set[int] = set()

    def among(self, finished: Sequence[FrozenTrial]) -> float:
        """Its seconds, 0 where none is complete. `finished` are all finished trials of the study: they never change."""
        if len(finished) > len(self._seen):
            for trial in finished:
                if trial.number in self._seen:
                    continue
                record = record_of(trial)
                if trial.state == TrialState.COMPLETE and self._section in (None, record.get(SECTION)):
                    took = record.get(BY_SECTION, {}).get(self._section, record)
                    self._seconds = max(self._seconds, float(took.get("seconds", 0.0)))
            self._seen.update(trial.number for trial in finished)
        return self._seconds


# --- a study of chosen trials ---

_WRITING = ("create_", "delete_", "set_")


def selected(study: optuna.Study, trials: Sequence[FrozenTrial]) -> optuna.Study:
    """The study with these of its trials alone, under their own numbers; one may be there several times.

    What would change it raises StudyError.
    """
    view = copy.copy(study)
    view._storage = _ReadOnlyStorage(study._storage, study._study_id, trials)
    return view


def _refuse(self: Any, *arguments: Any, **named: Any) -> NoReturn:
    raise StudyError("this study can only be read; to change it, load it with optuna.load_study")


class _SelectedTrials(ForwardingStorage):  # type: ignore[valid-type, misc]
    """Answers for one study from `trials`; everything else, about this study or others, is asked of `inner`."""

    def __init__(self, inner: BaseStorage, study_id: int, trials: Sequence[FrozenTrial]) -> None:
        self.inner, self._study_id, self._trials = inner, study_id, trials

    def get_all_trials(
        self, study_id: int, deepcopy: bool = True, states: Container[TrialState] | None = None
    ) -> list[FrozenTrial]:
        if study_id != self._study_id:
            found: list[FrozenTrial] = self.inner.get_all_trials(study_id, deepcopy=deepcopy, states=states)
            return found
        return [trial for trial in self._trials if states is None or trial.state in states]


_ReadOnlyStorage: type[_SelectedTrials] = type(
    "_ReadOnlyStorage",
    (_SelectedTrials,),
    {name: _refuse for name in BaseStorage.__abstractmethods__ if name.startswith(_WRITING)},
)
