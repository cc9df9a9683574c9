"""MLflow: a run for the study, and a nested run for each trial.

MLflow itself says what it has: runs are found again by the study's id and the trial's number in their tags.
"""

from __future__ import annotations

import os
import posixpath
import re
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from aimlhpo.config.resolve import expanded, variable_problems
from aimlhpo.errors import ConfigError, Problem
from aimlhpo.storage.open import literal_password
from aimlhpo.tracking.run import Run, StudyEntry, StudyState, Target, text_of

if TYPE_CHECKING:
    from mlflow.entities import Run as MlflowRun

    from aimlhpo.config.schema import MlflowSection

STUDY, TRIAL = "aimlhpo.study_id", "aimlhpo.trial"
_STATUS = {"COMPLETE": "FINISHED", "PRUNED": "KILLED", "FAIL": "FAILED", "RUNNING": "RUNNING", "WAITING": "SCHEDULED"}
_STUDY_STATUS = {None: "RUNNING", "finished": "FINISHED", "stopped": "KILLED"}
_TERMINAL = ("FINISHED", "KILLED", "FAILED")
_MOST_PARAMETERS, _MOST_METRICS, _MOST_TAGS = 100, 800, 100  # in one request, by MLflow's rules
_LONGEST_NAME, _LONGEST_PARAMETER, _LONGEST_TAG = 250, 500, 5000  # characters, by the rules of older servers
_SETTINGS = {
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0",  # we try again ourselves, after a look at what has arrived
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "30",
    "MLFLOW_ALLOW_FILE_STORE": "true",  # a directory is used where the user has named one
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
    "MLFLOW_DISABLE_TELEMETRY": "true",
}


@dataclass
class _KnownRun:
    """A trial's run in MLflow: what it holds already."""

    run_id: str
    status: str
    parameters: set[str] = field(default_factory=set)
    steps: set[int] = field(default_factory=set)

    @classmethod
    def of(cls, run: MlflowRun, reported: str, client: Any) -> _KnownRun:
        """What a run of MLflow's holds; the steps of `reported`, a name as MLflow has it, are asked of its client."""
        known = cls(run.info.run_id, "FINISHED" if _is_deleted(run) else run.info.status, {*run.data.params})
        if known.status not in _TERMINAL and reported in run.data.metrics:
            known.steps = {metric.step for metric in client.get_metric_history(known.run_id, reported)}
        return known


class MlflowTarget(Target):
    """Tells MLflow at `uri` of the study's trials; `reported` is the name of the metric that they report."""

    package = "mlflow"

    def __init__(self, uri: str, experiment: str, study: StudyEntry, reported: str) -> None:
        self.name = f"mlflow {uri}"
        self._uri, self._experiment_name, self._study, self._reported = uri, experiment, study, reported
        self._known: dict[int, _KnownRun] = {}
        self._state = StudyState()

    @classmethod
    def make(cls, section: MlflowSection, study: StudyEntry, reported: str) -> MlflowTarget:
        return cls(section.uri, section.experiment, study, reported)

    @classmethod
    def problems(cls, section: MlflowSection) -> Iterator[Problem]:
        safe = literal_password(section.uri) if "://" in section.uri else None
        if safe:
            found = "the URL holds a password, which would end up in copies of the configuration"
            yield Problem("log: mlflow: uri", found, f"{safe}, and the password in the environment")

    @classmethod
    def is_remote(cls, section: MlflowSection) -> bool:
        return section.uri.startswith("http")

    def load(self) -> None:
        for name, value in _SETTINGS.items():
            os.environ.setdefault(name, value)
        from mlflow import entities, tracking

        self._entities, self._make_client = entities, tracking.MlflowClient

    def open(self) -> None:
        self.load()
        if unset := variable_problems("log: mlflow: uri", self._uri):
            raise ConfigError(unset)
        self._client = self._make_client(tracking_uri=expanded(self._uri))
        experiment = self._client.get_experiment_by_name(self._experiment_name)
        self._experiment = (
            str(experiment.experiment_id)
            if experiment is not None
            else self._client.create_experiment(self._experiment_name)
        )
        runs = list(self._find_runs())
        self._known = {
            int(run.data.tags[TRIAL]): _KnownRun.of(run, _name(self._reported), self._client)
            for run in runs
            if TRIAL in run.data.tags
        }
        parents = [run.info.run_id for run in runs if TRIAL not in run.data.tags and not _is_deleted(run)]
        if parents:
            self._parent = str(parents[0])
        else:
            tags = {STUDY: self._study.id, **self._study.tags}
            parent = self._client.create_run(self._experiment, tags=tags, run_name=self._study.name)
            self._log(parent.info.run_id, self._study.parameters, [], {})
            self._parent = str(parent.info.run_id)
        self._state = StudyState(ended="unknown" if parents else None)

    def _find_runs(self) -> Iterator[MlflowRun]:
        """All runs of the study, deleted ones too: what somebody has deleted is not made again."""
        query, every, token = f"tags.`{STUDY}` = '{self._study.id}'", self._entities.ViewType.ALL, None
        while True:
            page = self._client.search_runs([self._experiment], query, every, 1000, page_token=token)
            yield from page
            token = page.token
            if not token:
                return

    def send(self, run: Run) -> None:
        known = self._known.get(run.number)
        if known is None:
            tags = {STUDY: self._study.id, TRIAL: str(run.number), "mlflow.parentRunId": self._parent}
            created = self._client.create_run(self._experiment, _milliseconds(run.began), tags, f"trial {run.number}")
            self._known[run.number] = known = _KnownRun(created.info.run_id, "RUNNING")
        if known.status in _TERMINAL:
            return
        everything = {**run.config, **run.parameters}
        parameters = {name: value for name, value in everything.items() if _name(name) not in known.parameters}
        reports = {step: value for step, value in run.reports.items() if step not in known.steps}
        metrics = [(self._reported, value, step) for step, value in reports.items()]
        metrics += [(name, value, 0) for name, value in run.metrics.items() if run.is_finished]
        self._log(known.run_id, parameters, metrics, run.facts, run.ended)
        known.parameters.update(map(_name, parameters))
        known.steps.update(reports)
        status = _STATUS[run.state]
        if run.is_finished:
            self._client.set_terminated(known.run_id, status, _milliseconds(run.ended))
        elif status != known.status:
            self._client.update_run(known.run_id, status)
        known.status = status

    def conclude(self, state: StudyState) -> None:
        if state == self._state:
            return
        if state.best != self._state.best:
            self._log(self._parent, {}, [(f"best/{n}", v, state.finished) for n, v in state.best.items()], {})
        status = _STUDY_STATUS[state.ended]
        if state.ended is None:
            self._client.update_run(self._parent, status)
        else:
            self._client.set_terminated(self._parent, status)
        self._state = state

    def _log(
        self,
        run_id: str,
        parameters: Mapping[str, Any],
        metrics: list[tuple[str, float, int]],
        tags: Mapping[str, str],
        moment: float | None = None,
    ) -> None:
        """Log everything, in as few requests as MLflow takes."""
        make, now = self._entities, int((moment or time.time()) * 1000)
        values = [make.Param(_name(name), text_of(value)[:_LONGEST_PARAMETER]) for name, value in parameters.items()]
        points = [make.Metric(_name(name), value, now, step) for name, value, step in metrics]
        labels = [make.RunTag(_name(name), text[:_LONGEST_TAG]) for name, text in tags.items()]
        while values or points or labels:
            self._client.log_batch(run_id, points[:_MOST_METRICS], values[:_MOST_PARAMETERS], labels[:_MOST_TAGS])
            del points[:_MOST_METRICS], values[:_MOST_PARAMETERS], labels[:_MOST_TAGS]


def _is_deleted(run: MlflowRun) -> bool:
    return bool(run.info.lifecycle_stage == "deleted")


def _milliseconds(seconds: float | None) -> int | None:
    return int(seconds * 1000) if seconds else None


def _name(text: str) -> str:
    """A name as MLflow takes it: letters, digits and `_-.: /`, and none that looks like a way out of a directory."""
    allowed = re.sub(r"[^/\w.\- :]", "_", text)
    return posixpath.normpath(allowed).lstrip("./")[:_LONGEST_NAME] or "_"
