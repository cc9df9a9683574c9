"""What a tracking tool has to offer to be told of a study.
What is told of a trial: plain data, made from what the storage holds.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING, Any, Protocol

from optuna.trial import FrozenTrial, TrialState

from aimlhpo.config.optuna_section import reported_metric
from aimlhpo.results.best import best_model
from aimlhpo.storage.trials import ATTRIBUTE, TrialRecord, origin, read_record

if TYPE_CHECKING:
    from aimlhpo.config.schema import Config


@dataclass(frozen=True)
class StudyState:
    """How the study stands: `ended` is "finished", "stopped", or None while trials run; `best` by metric."""

    finished: int = 0
    best: dict[str, float] = field(default_factory=dict)
    ended: str | None = None


class Target(Protocol):
    """One tracking tool, at one place. Every method may raise anything: then `open` is called before the next call."""

    name: str

    def load(self) -> None:
        """Import what is needed; whatever it raises, `open` raises too."""

    def open(self) -> None:
        """Find out what the tool has of the study."""

    def send(self, run: Run) -> None:
        """Make the tool have all of the run, once; what it has already is left alone."""

    def conclude(self, state: StudyState) -> None:
        """Tell how the study stands."""


_SHOWN = ("cause", "log", "worker", "device", "host", "attempts", "seed")


@dataclass(frozen=True)
class Run:
    """A trial as tracking tools see it; `began` and `ended` are seconds since the epoch.

    `config` is the model config that a finished trial has trained with, by colon path; `facts` are what else there is
    to say of it, as text.
    """

    number: int
    state: str
    began: float | None = None
    ended: float | None = None
    parameters: dict[str, Any] = field(default_factory=dict)
    config: dict[str, Any] = field(default_factory=dict)
    reports: dict[int, float] = field(default_factory=dict)
    metrics: dict[str, float] = field(default_factory=dict)
    facts: dict[str, str] = field(default_factory=dict)

    @property
    def is_finished(self) -> bool:
        return self.ended is not None


class Reader:
    """Makes runs of one study's trials."""

    def __init__(self, config: Config) -> None:
        self._config = config
        self._space = config.space
        pruner, metrics = config.optuna.pruner, config.optuna.metric
        position = reported_metric(metrics, getattr(pruner, "metric", None))
        self.reported = "reports/" + (metrics[position] if position is not None else "value")

    def read(self, trial: FrozenTrial) -> Run:
        record = read_record(trial, self._config.optuna.metric)
        finished = trial.state.is_finished()
        return Run(
            number=trial.number,
            state=trial.state.name,
            began=_seconds(trial.datetime_start),
            ended=(_seconds(trial.datetime_complete) or 0.0) if finished else None,
            parameters=self._space.values(trial.params),
            config=self._trained_with(record) if finished else {},
            reports=dict(sorted(trial.intermediate_values.items())),
            metrics={name: float(value) for name, value in record.metrics.items() if _is_number(value)},
            facts={"state": trial.state.name, **dict(_facts(trial, record))},
        )

    def _trained_with(self, record: TrialRecord) -> dict[str, Any]:
        """The whole config; none where the trial ended before it had all its parameters."""
        known = {*record.params, *(p.name for p in self._space.parameters if p.conditional)}
        if not all(parameter.name in known for parameter in self._space.parameters):
            return {}
        return dict(_leaves(best_model(record, self._config, self._space)))


def mark(trial: FrozenTrial) -> tuple[TrialState, int, int]:
    """Changes whenever there is something new to tell of the trial."""
    return trial.state, len(trial.params), len(trial.intermediate_values)


def _seconds(moment: datetime | None) -> float | None:
    return moment.timestamp() if moment is not None else None


def _is_number(value: Any) -> bool:
    return isinstance(value, bool | int | float)


def _facts(trial: FrozenTrial, record: TrialRecord) -> Iterator[tuple[str, str]]:
    """What aimlhpo and the objective have noted with the trial."""
    known = trial.user_attrs.get(ATTRIBUTE) or {}
    noted = {key: value for key, value in trial.user_attrs.items() if key.partition(":")[0] != ATTRIBUTE}
    words = {name: value for name, value in record.metrics.items() if not _is_number(value)}
    ours = {name: known.get(name) for name in _SHOWN} | {"origin": origin(trial)}
    for name, value in (ours | words | noted).items():
        if value is not None:
            yield name, text_of(value)


def text_of(value: Any) -> str:
    """A value as text that reads back."""
    return value if isinstance(value, str) else json.dumps(value, default=str)


def _leaves(value: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """Colon path and value of everything that is no mapping, nor a list of mappings or lists."""
    if isinstance(value, list) and any(isinstance(item, dict | list) for item in value):
        value = {str(position): item for position, item in enumerate(value)}
    if not isinstance(value, Mapping) or not value:
        yield path, value
        return
    for key, item in value.items():
        yield from _leaves(item, f"{path}:{key}" if path else str(key))
