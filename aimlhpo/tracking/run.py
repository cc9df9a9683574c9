"""What tracking tools are told, as plain data made of what the storage holds, and the interface of a target."""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING, Any, ClassVar

from optuna.trial import FrozenTrial, TrialState

from aimlhpo.config.optuna_section import reported_metric
from aimlhpo.errors import Problem
from aimlhpo.results.best import best_model
from aimlhpo.storage.attributes import objective_attributes, record_of
from aimlhpo.storage.trials import origin, read_record

if TYPE_CHECKING:
    from aimlhpo.config.schema import Config

_SHOWN = ("cause", "log", "worker", "device", "section", "host", "attempts", "seed")


@dataclass(frozen=True)
class StudyEntry:
    """The study as a tool shows it."""

    id: str
    name: str
    parameters: Mapping[str, Any]
    tags: Mapping[str, str]


@dataclass(frozen=True)
class StudyState:
    """How the study is: `ended` is "finished", "stopped", or None while trials run; `best` by metric."""

    finished: int = 0
    best: dict[str, float] = field(default_factory=dict)
    ended: str | None = None


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


class Target(ABC):
    """One tracking tool, at one place.

    Every method but those of the class may raise anything; then `open` is called before the next call.
    """

    package: ClassVar[str]
    """The package that the tool needs, which is also the name of aimlhpo's extra."""
    name: str

    @classmethod
    @abstractmethod
    def make(cls, section: Any, study: StudyEntry, reported: str) -> Target:
        """The target that a section under `log` asks for. Nothing is opened or imported yet.

        `reported` is the name under which the values that trials report are shown.
        """

    @classmethod
    def problems(cls, section: Any) -> Iterator[Problem]:
        """What is wrong with the section; whether the package is installed is checked for all tools alike."""
        yield from ()

    @classmethod
    def is_remote(cls, section: Any) -> bool:
        """Whether a server is told, which answers within seconds or not at all."""
        return False

    @abstractmethod
    def load(self) -> None:
        """Import what is needed; whatever it raises, `open` raises too."""

    @abstractmethod
    def open(self) -> None:
        """Find out what the tool has of the study."""

    @abstractmethod
    def send(self, run: Run) -> None:
        """Make the tool have all of the run, once; what it has already is left alone."""

    @abstractmethod
    def conclude(self, state: StudyState) -> None:
        """Tell how the study is."""


class RunReader:
    """Makes runs of one study's trials. `reported` is the name of the values that they report."""

    def __init__(self, config: Config) -> None:
        self._config = config
        self._space = config.space
        pruner, metrics = config.optuna.pruner, config.optuna.metric
        position = reported_metric(metrics, getattr(pruner, "metric", None))
        self.reported = "reports/" + (metrics[position] if position is not None else "value")

    def read(self, trial: FrozenTrial) -> Run:
        record = read_record(trial, self._config.optuna.metric)
        finished = trial.state.is_finished()
        known = {*record.params, *(p.name for p in self._space.parameters if p.conditional)}
        config = {}
        if finished and all(parameter.name in known for parameter in self._space.parameters):
            # A trial that ended before it had all its parameters has trained with no config.
            config = dict(_leaves(best_model(record, self._config, self._space)))
        # What aimlhpo and the objective have noted with the trial.
        known_facts = record_of(trial)
        facts = {name: known_facts.get(name) for name in _SHOWN} | {"origin": origin(trial)}
        facts |= {name: value for name, value in record.metrics.items() if not _is_number(value)}
        facts |= objective_attributes(trial)
        return Run(
            number=trial.number,
            state=trial.state.name,
            began=_seconds(trial.datetime_start),
            ended=(_seconds(trial.datetime_complete) or 0.0) if finished else None,
            parameters=self._space.values(trial.params),
            config=config,
            reports=dict(sorted(trial.intermediate_values.items())),
            metrics={name: float(value) for name, value in record.metrics.items() if _is_number(value)},
            facts={"state": trial.state.name}
            | {name: text_of(value) for name, value in facts.items() if value is not None},
        )


def version_of(trial: FrozenTrial) -> tuple[TrialState, int, int]:
    """Changes whenever there is something new to tell of the trial."""
    return trial.state, len(trial.params), len(trial.intermediate_values)


def text_of(value: Any) -> str:
    """A value as text that reads back."""
    return value if isinstance(value, str) else json.dumps(value, default=str)


def _seconds(moment: datetime | None) -> float | None:
    return moment.timestamp() if moment is not None else None


def _is_number(value: Any) -> bool:
    return isinstance(value, bool | int | float)


def _leaves(value: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """Colon path and value of everything that is no mapping, nor a list of mappings or lists."""
    if isinstance(value, list) and any(isinstance(item, dict | list) for item in value):
        value = {str(position): item for position, item in enumerate(value)}
    if not isinstance(value, Mapping) or not value:
        yield path, value
        return
    for key, item in value.items():
        yield from _leaves(item, f"{path}:{key}" if path else str(key))
