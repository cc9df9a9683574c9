"""A large finished study, made in seconds: its trials are written as an agent writes them, but in bulk.

    python -m benchmarks.big_study FOLDER sqlite:////tmp/big.db [--trials 10000] [--reports 100]

FOLDER gets the objective and both YAML files, so that every command can be tried on the study:

    python -m aimlhpo status FOLDER/run
"""

from __future__ import annotations

import argparse
import json
import math
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
    distribution_to_json,
)
from optuna.storages import BaseStorage, JournalStorage, RDBStorage
from optuna.storages._rdb import models
from optuna.storages.journal._storage import JournalOperation
from optuna.trial import TrialState
from sqlalchemy import Connection, Table, insert, select

from aimlhpo.search.warm_start import begin_study
from aimlhpo.storage.attributes import RECORD
from aimlhpo.storage.base import CLAIM
from tests.project import Project

SPACE: dict[str, tuple[str, dict[str, Any], BaseDistribution]] = {
    "x0": ("float", {"low": 0.0, "high": 1.0}, FloatDistribution(0.0, 1.0)),
    "x1": ("float", {"low": 0.0, "high": 1.0}, FloatDistribution(0.0, 1.0)),
    "rate": ("loguniform", {"low": 1e-5, "high": 1e-1}, FloatDistribution(1e-5, 1e-1, log=True)),
    "layers": ("int", {"low": 1, "high": 8}, IntDistribution(1, 8)),
    "kind": ("categorical", {"choices": ["a", "b", "c"]}, CategoricalDistribution(("a", "b", "c"))),
}
DISTRIBUTIONS = {name: distribution for name, (_, _, distribution) in SPACE.items()}
_JSON = {name: distribution_to_json(distribution) for name, distribution in DISTRIBUTIONS.items()}
_AT_ONCE = 500  # trials in one write
OBJECTIVE = """
from aimlhpo import BaseObjective

class Objective(BaseObjective):
    def train(self, trial, conf):
        return {"val_loss": (conf["x0"] - 0.3) ** 2 + (conf["x1"] - 0.7) ** 2}
"""


@dataclass(frozen=True)
class BigTrial:
    """A finished trial; `params` as a storage keeps them (numbers), times in UTC without a time zone."""

    number: int
    state: TrialState
    params: dict[str, float]
    value: float | None
    reports: Sequence[float]
    start: datetime
    end: datetime

    @property
    def claim(self) -> dict[str, Any]:
        return {"agent": "bigagent", "token": f"{self.number:016x}", "slot": self.number % 8, "device": "cpu"}

    @property
    def metrics(self) -> dict[str, Any]:
        return {} if self.value is None else {"val_loss": self.value}

    @property
    def record(self) -> dict[str, Any]:
        failed = self.state == TrialState.FAIL
        return {
            "metrics": self.metrics, "seconds": 30.0,
            "cause": "exception: ValueError" if failed else None, "error": "Traceback ..." if failed else None,
            "updates": {}, "unread": [], "seed": self.number, "attempts": 1, "worker": "host:bigagent:0",
            "host": "host", "device": "cpu", "log": "logs/worker-bigagent-0.log", "log_offset": 120 * self.number,
            "provenance": "0123456789ab",
        }  # fmt: skip


def big_project(folder: Path, url: str, trials: int = 10_000, reports: int = 100, **optuna_keys: Any) -> Project:
    """A user's folder whose study has `trials` finished trials, of `reports` reports each, in the storage at `url`.

    One trial of ten is PRUNED (with all its reports), one of fifty FAIL; 1,000 more than are there may be run.
    """
    folder.mkdir(parents=True, exist_ok=True)
    parameters = {
        name: {"type": kind, "settings": {"name": name, **settings}} for name, (kind, settings, _) in SPACE.items()
    }
    keys: dict[str, Any] = {
        "storage": url, "n_trials": trials + 1000, "parameters": parameters, "seed": 1,
        "sampler": {"type": "TPESampler"}, "pruner": {"type": "MedianPruner"}, **optuna_keys,
    }  # fmt: skip
    project = Project(folder, OBJECTIVE, **keys)
    project.model.write_text("x0: 0.5\nx1: 0.5\nrate: 0.1\nlayers: 2\nkind: a\n")
    config = project.config
    study = begin_study(config)
    config.write_snapshot()
    fill(study._storage, study._study_id, trials, reports)
    return project


def fill(storage: BaseStorage, study_id: int, trials: int, reports: int) -> None:
    """Write the trials to a study without any."""
    ended = ended_trials(trials, reports)
    inner = getattr(storage, "_backend", None)
    if isinstance(storage, JournalStorage):
        for batch in _batches(ended):
            storage._backend.append_logs([log for trial in batch for log in _logs(study_id, trial)])
    elif isinstance(inner, RDBStorage):
        for batch in _batches(ended):
            with inner.engine.begin() as connection:
                _insert(connection, study_id, batch)


def _batches(trials: Iterator[BigTrial]) -> Iterator[list[BigTrial]]:
    while batch := list(islice(trials, _AT_ONCE)):
        yield batch


def ended_trials(trials: int, reports: int) -> Iterator[BigTrial]:
    """Trials of 30 s, eight at a time, the last of them ending now; always the same values."""
    rng = np.random.default_rng(0)
    begin = datetime.now(UTC).replace(tzinfo=None) - timedelta(seconds=30 * math.ceil(trials / 8))
    for number in range(trials):
        params = {name: _draw(rng, distribution) for name, distribution in DISTRIBUTIONS.items()}
        value = (params["x0"] - 0.3) ** 2 + (params["x1"] - 0.7) ** 2 + 0.1 * params["kind"]
        curve = [float(value + noise / (1 + step)) for step, noise in enumerate(rng.random(reports))]
        start = begin + timedelta(seconds=30 * (number // 8))
        yield _ended(number, params, float(value), curve, start)


def _ended(number: int, params: dict[str, float], value: float, curve: Sequence[float], start: datetime) -> BigTrial:
    state = TrialState.COMPLETE
    if number % 50 == 13:
        state = TrialState.FAIL
    elif number % 10 == 7:
        state = TrialState.PRUNED
    last = curve[-1] if curve else None
    result = {TrialState.FAIL: None, TrialState.PRUNED: last}.get(state, value)
    return BigTrial(number, state, params, result, curve, start, start + timedelta(seconds=30))


def _draw(rng: np.random.Generator, distribution: BaseDistribution) -> float:
    if isinstance(distribution, CategoricalDistribution):
        return float(rng.integers(len(distribution.choices)))
    assert isinstance(distribution, FloatDistribution | IntDistribution)
    if distribution.log:
        return float(np.exp(rng.uniform(np.log(distribution.low), np.log(distribution.high))))
    value = rng.uniform(distribution.low, distribution.high)
    return float(round(value)) if isinstance(distribution, IntDistribution) else float(value)


# --- journals ---


def _logs(study_id: int, trial: BigTrial) -> Iterator[dict[str, Any]]:
    """What an agent appends over a trial's life."""
    here = {"worker_id": "big-1", "trial_id": trial.number}
    yield {
        "op_code": JournalOperation.CREATE_TRIAL, "worker_id": "big-1", "study_id": study_id,
        "datetime_start": _utc(trial.start), "state": TrialState.RUNNING, "value": None, "values": None,
        "distributions": {}, "params": {}, "user_attrs": {}, "system_attrs": {CLAIM: trial.claim},
        "intermediate_values": {},
    }  # fmt: skip
    for name, value in trial.params.items():
        param = {"param_name": name, "param_value_internal": value, "distribution": _JSON[name]}
        yield {"op_code": JournalOperation.SET_TRIAL_PARAM, **here, **param}
    for step, report in enumerate(trial.reports):
        values = {"step": step, "intermediate_value": report}
        yield {"op_code": JournalOperation.SET_TRIAL_INTERMEDIATE_VALUE, **here, **values}
    yield {"op_code": JournalOperation.SET_TRIAL_SYSTEM_ATTR, **here, "system_attr": {RECORD: trial.record}}
    for name, value in trial.metrics.items():
        yield {"op_code": JournalOperation.SET_TRIAL_USER_ATTR, **here, "user_attr": {name: value}}
    end = {"state": trial.state, "values": _values(trial), "datetime_complete": _utc(trial.end)}
    yield {"op_code": JournalOperation.SET_TRIAL_STATE_VALUES, **here, **end}


def _utc(moment: datetime) -> str:
    return moment.replace(tzinfo=UTC).isoformat(timespec="microseconds")


def _values(trial: BigTrial) -> list[float] | None:
    return None if trial.value is None else [trial.value]


# --- databases ---


def _insert(connection: Connection, study_id: int, trials: Sequence[BigTrial]) -> None:
    rows = models.TrialModel
    _write(connection, rows.__table__, [_trial_row(study_id, trial) for trial in trials])
    query = select(rows.number, rows.trial_id).where(rows.study_id == study_id, rows.number >= trials[0].number)
    ids = {row.number: row.trial_id for row in connection.execute(query)}
    for model, of_trial in (
        (models.TrialParamModel, _param_rows),
        (models.TrialValueModel, _value_rows),
        (models.TrialIntermediateValueModel, _step_rows),
        (models.TrialSystemAttributeModel, lambda trial: _attr_rows({CLAIM: trial.claim, RECORD: trial.record})),
        (models.TrialUserAttributeModel, lambda trial: _attr_rows(trial.metrics)),
    ):
        found = [{"trial_id": ids[trial.number], **row} for trial in trials for row in of_trial(trial)]
        _write(connection, model.__table__, found)


def _trial_row(study_id: int, trial: BigTrial) -> dict[str, Any]:
    return {
        "study_id": study_id, "number": trial.number, "state": trial.state,
        "datetime_start": trial.start, "datetime_complete": trial.end,
    }  # fmt: skip


def _param_rows(trial: BigTrial) -> Iterable[dict[str, Any]]:
    for name, value in trial.params.items():
        yield {"param_name": name, "param_value": value, "distribution_json": _JSON[name]}


def _value_rows(trial: BigTrial) -> Iterable[dict[str, Any]]:
    finite = models.TrialValueModel.TrialValueType.FINITE
    return [{"objective": 0, "value": value, "value_type": finite} for value in _values(trial) or ()]


def _step_rows(trial: BigTrial) -> Iterable[dict[str, Any]]:
    finite = models.TrialIntermediateValueModel.TrialIntermediateValueType.FINITE
    for step, value in enumerate(trial.reports):
        yield {"step": step, "intermediate_value": value, "intermediate_value_type": finite}


def _attr_rows(attributes: dict[str, Any]) -> list[dict[str, Any]]:
    return [{"key": key, "value_json": json.dumps(value)} for key, value in attributes.items()]


def _write(connection: Connection, table: Table, rows: Sequence[dict[str, Any]]) -> None:
    if rows and connection.dialect.driver == "psycopg":
        _copy(connection, table, rows)
    elif rows:
        connection.execute(insert(table), rows)


def _copy(connection: Connection, table: Table, rows: Sequence[dict[str, Any]]) -> None:
    """PostgreSQL's own bulk load: twenty times faster than inserts."""
    names = ", ".join(rows[0])
    with connection.connection.cursor() as cursor, cursor.copy(f"COPY {table.name} ({names}) FROM STDIN") as copy:
        for row in rows:
            copy.write_row([getattr(value, "name", value) for value in row.values()])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="gets the objective and the YAML files")
    parser.add_argument("url", help="the storage; it must hold no study named s")
    parser.add_argument("--trials", type=int, default=10_000)
    parser.add_argument("--reports", type=int, default=100)
    arguments = parser.parse_args()
    begun = time.monotonic()
    big_project(arguments.folder, arguments.url, arguments.trials, arguments.reports)
    print(f"{arguments.trials} trials in {arguments.folder / 'run'} in {time.monotonic() - begun:.1f} s")


if __name__ == "__main__":
    main()
