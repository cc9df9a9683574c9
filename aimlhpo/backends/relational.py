"""SQLite, PostgreSQL and MySQL: Optuna's own tables, one transaction where its calls take one for each value."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Any

from optuna.distributions import distribution_to_json
from optuna.storages import RDBStorage
from optuna.storages._rdb import models
from optuna.trial import FrozenTrial, TrialState
from sqlalchemy import Connection, and_, func, insert, select, update
from sqlalchemy.orm import Session

from aimlhpo.backends import rows
from aimlhpo.backends.backend import OURS, OpenTrial, Overview, Place, token_of
from aimlhpo.backends.operations import (
    Operation,
    SetIntermediate,
    SetParam,
    SetStart,
    SetState,
    SetSystemAttr,
    SetUserAttr,
)  # fmt: skip

_FINISHED = (TrialState.COMPLETE, TrialState.PRUNED, TrialState.FAIL)
_Trial, _Attr = models.TrialModel, models.TrialSystemAttributeModel
_Value, _Step = models.TrialValueModel, models.TrialIntermediateValueModel


class RelationalBackend:
    """Reads with two small queries; writes a batch in one transaction: all of it, or nothing."""

    def __init__(self, rdb: RDBStorage) -> None:
        self._rdb = rdb
        self._engine = rdb.engine
        self._reading = rdb.engine.execution_options(isolation_level="AUTOCOMMIT")

    def overview(self, study_id: int) -> Overview:
        with self._reading.connect() as connection:
            finished = _count_finished(connection, study_id)
            rows = connection.execute(_open_trials().where(_Trial.study_id == study_id)).all()
        return Overview(
            complete=finished.get(TrialState.COMPLETE, 0),
            pruned=finished.get(TrialState.PRUNED, 0),
            failed=finished.get(TrialState.FAIL, 0),
            open=_gather(rows),
        )

    def latest_ends(self, study_id: int, most: int) -> Sequence[datetime]:
        with self._reading.connect() as connection:
            return rows.latest_ends(connection, study_id, (TrialState.COMPLETE, TrialState.PRUNED), most)

    def open_trial(self, trial_id: int) -> OpenTrial:
        with self._reading.connect() as connection:
            rows = connection.execute(_trials_with_claims().where(_Trial.trial_id == trial_id)).all()
        if not rows:
            raise KeyError(f"no trial has the id {trial_id}")
        return _gather(rows)[0]

    def introduce(self, operation: SetParam) -> None:
        operation.replay(self._rdb)

    def apply(self, operations: Sequence[Operation]) -> None:
        with Session(self._engine) as session, session.begin():
            _write(session, operations)

    def commit(self, study_id: int, operations: Sequence[Operation], new: Sequence[FrozenTrial]) -> dict[str, Place]:
        with Session(self._engine) as session, session.begin():
            _write(session, operations)
            return _make(session, study_id, new) if new else {}


def _write(session: Session, operations: Sequence[Operation]) -> None:
    _write_values(session, _Step, "step", [_step_row(op) for op in operations if isinstance(op, SetIntermediate)])
    params = [_param_row(op) for op in operations if isinstance(op, SetParam)]
    _write_values(session, models.TrialParamModel, "param_name", params)
    for model, kind in ((_Attr, SetSystemAttr), (models.TrialUserAttributeModel, SetUserAttr)):
        rows = [_attr_row(op) for op in operations if isinstance(op, kind)]
        _write_values(session, model, "key", rows)
    _write_states(session, [op for op in operations if isinstance(op, SetState)])
    _write_starts(session, [op for op in operations if isinstance(op, SetStart)])


def _make(session: Session, study_id: int, new: Sequence[FrozenTrial]) -> dict[str, Place]:
    # The study's row is locked, as Optuna does it, so that others who make trials count right.
    session.execute(select(models.StudyModel.study_id).filter_by(study_id=study_id).with_for_update())
    first = session.execute(select(func.count()).where(_Trial.study_id == study_id)).scalar_one()
    rows = [
        _Trial(study_id=study_id, number=number, state=trial.state, datetime_start=trial.datetime_start)
        for number, trial in enumerate(new, first)
    ]
    session.add_all(rows)
    session.flush()
    attrs = [
        _attr_row(SetSystemAttr(int(row.trial_id), key, value))
        for row, trial in zip(rows, new, strict=True)
        for key, value in trial.system_attrs.items()
    ]
    if attrs:
        session.execute(insert(_Attr), attrs)
    made = ((token_of(trial), Place(int(row.trial_id), int(row.number))) for row, trial in zip(rows, new, strict=True))
    return {token: place for token, place in made if token}


def _count_finished(connection: Connection, study_id: int) -> dict[TrialState, int]:
    query = select(_Trial.state, func.count()).where(_Trial.study_id == study_id, _Trial.state.in_(_FINISHED))
    return {row[0]: row[1] for row in connection.execute(query.group_by(_Trial.state))}


def _trials_with_claims() -> Any:
    ours = and_(_Attr.trial_id == _Trial.trial_id, _Attr.key.in_(OURS))
    columns = (_Trial.trial_id, _Trial.number, _Trial.state, _Attr.key, _Attr.value_json)
    return select(*columns).outerjoin(_Attr, ours).order_by(_Trial.number)


def _open_trials() -> Any:
    return _trials_with_claims().where(_Trial.state.in_((TrialState.RUNNING, TrialState.WAITING)))


def _gather(rows: Iterable[Any]) -> list[OpenTrial]:
    """One trial from its rows, one for each of our attributes."""
    attrs: dict[tuple[int, int, TrialState], dict[str, Any]] = {}
    for trial_id, number, state, key, value in rows:
        known = attrs.setdefault((trial_id, number, state), {})
        if key is not None:
            known[key] = json.loads(value)
    return [OpenTrial(*trial, *(known.get(key) for key in OURS)) for trial, known in attrs.items()]


def _write_values(session: Session, model: Any, key: str, rows: list[dict[str, Any]]) -> None:
    """Insert the rows, or bring those up to date that are there; the last of several with one key counts."""
    latest = {(row["trial_id"], row[key]): row for row in rows}
    if not latest:
        return
    column = getattr(model, key)
    trial_ids, keys = {trial_id for trial_id, _ in latest}, {name for _, name in latest}
    query = select(model.trial_id, column).where(model.trial_id.in_(trial_ids), column.in_(keys))
    there = {(trial_id, name) for trial_id, name in session.execute(query)}
    new = [row for place, row in latest.items() if place not in there]
    if new:
        session.execute(insert(model), new)
    for place in there & latest.keys():
        session.execute(update(model).where(model.trial_id == place[0], column == place[1]).values(**latest[place]))


def _step_row(operation: SetIntermediate) -> dict[str, Any]:
    value, kind = _Step.intermediate_value_to_stored_repr(operation.value)
    return {
        "trial_id": operation.trial_id, "step": operation.step,
        "intermediate_value": value, "intermediate_value_type": kind,
    }  # fmt: skip


def _param_row(operation: SetParam) -> dict[str, Any]:
    return {
        "trial_id": operation.trial_id, "param_name": operation.name,
        "param_value": operation.internal, "distribution_json": distribution_to_json(operation.distribution),
    }  # fmt: skip


def _attr_row(operation: SetSystemAttr | SetUserAttr) -> dict[str, Any]:
    return {"trial_id": operation.trial_id, "key": operation.key, "value_json": json.dumps(operation.value)}


def _write_states(session: Session, operations: Sequence[SetState]) -> None:
    """One statement for each state; the last of several for one trial counts."""
    states = {operation.trial_id: operation.state for operation in operations}
    for state in set(states.values()):
        trial_ids = [trial_id for trial_id, wanted in states.items() if wanted == state]
        changes = {"state": state, **_moments(state)}
        session.execute(
            update(_Trial).where(_Trial.trial_id.in_(trial_ids)).values(changes),
            execution_options={"synchronize_session": False},
        )
    values = [_value_row(op.trial_id, place, value) for op in operations for place, value in enumerate(op.values or ())]
    _write_values(session, _Value, "objective", values)


def _moments(state: TrialState) -> dict[str, datetime]:
    if state == TrialState.RUNNING:
        return {"datetime_start": datetime.now()}
    return {"datetime_complete": datetime.now()} if state.is_finished() else {}


def _write_starts(session: Session, operations: Sequence[SetStart]) -> None:
    for operation in operations:
        session.execute(
            update(_Trial).where(_Trial.trial_id == operation.trial_id).values(datetime_start=operation.at),
            execution_options={"synchronize_session": False},
        )


def _value_row(trial_id: int, objective: int, value: float) -> dict[str, Any]:
    stored, kind = _Value.value_to_stored_repr(value)
    return {"trial_id": trial_id, "objective": objective, "value": stored, "value_type": kind}
