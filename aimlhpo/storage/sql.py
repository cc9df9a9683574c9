"""SQLite, PostgreSQL and MySQL: Optuna's own tables, read and written with fewer and larger statements than Optuna's.

It relies on Optuna's private names (`optuna_internals`); where these are not supported, Optuna's `RDBStorage` takes its
place. What is stored is the same either way.

Database            the storage: a finished trial is read once, column by column, which takes a twentieth of the time
                    and memory of Optuna's own reading; its intermediate values are read when somebody asks for them
RelationalBackend   what the ledger asks, with two small queries, and a batch of writes in one transaction

Reading a study: `Database.get_all_trials` asks for the rows of new and unfinished trials (`_changed_rows`), builds the
trials (`_build_trials`), and keeps the finished ones; `Database.read_curve` gets intermediate values later.
"""

from __future__ import annotations

import copy
import json
from collections import Counter, defaultdict
from collections.abc import Collection, Container, Mapping, Sequence
from datetime import UTC, datetime
from functools import partial
from itertools import chain, islice
from typing import Any

from optuna.distributions import distribution_to_json
from optuna.storages import RDBStorage
from optuna.trial import FrozenTrial, TrialState
from sqlalchemy import Connection, String, and_, func, insert, or_, select, type_coerce, update
from sqlalchemy.orm import Session

from aimlhpo.storage.base import (
    CHANGES,
    FINISHED,
    STATUS_ATTRS,
    SUCCESSFUL,
    UNFINISHED,
    Backend,
    OpenTrial,
    Operation,
    Overview,
    Place,
    SetIntermediate,
    SetParam,
    SetStart,
    SetState,
    SetSystemAttr,
    SetUserAttr,
    overview_of,
    token_of,
)
from aimlhpo.storage.optuna_internals import (
    CachedStorage,
    LazyTrial,
    ReadCurve,
    StudyInfo,
    collection_paused,
    relational_models,
    shared_distribution,
)

models = relational_models()
_Trial, _Param, _Value = models.TrialModel, models.TrialParamModel, models.TrialValueModel
_UserAttr, _SystemAttr = models.TrialUserAttributeModel, models.TrialSystemAttributeModel
_Step, _StudyAttr = models.TrialIntermediateValueModel, models.StudySystemAttributeModel

_MOST_NAMED = 500  # trials that one query names; SQLite allows 32766 variables, older ones 999
_AT_ONCE = 1000  # trials whose intermediate values are read together
_ROWS_AT_ONCE = 10_000  # of these, which is faster than one by one
_IN_BULK = {"synchronize_session": False}  # no object of the session is affected by the statement

_Rows = Sequence[Any]  # SQLAlchemy's rows: their columns have no types


class Database(CachedStorage):
    """Optuna's cached database storage, with a lean reading of trials; it may be used by several threads.

    Trials that are still open are read anew each time, if their state is asked for at all.
    """

    def __init__(self, backend: RDBStorage) -> None:
        super().__init__(backend)
        self._lists: dict[tuple[int, frozenset[TrialState]], list[FrozenTrial]] = {}
        self._asked_before = False

    def make_backend(self) -> RelationalBackend:
        return RelationalBackend(self._backend)

    def get_all_trials(
        self, study_id: int, deepcopy: bool = True, states: Container[TrialState] | None = None
    ) -> list[FrozenTrial]:
        wanted = frozenset(state for state in TrialState if states is None or state in states)
        with self._lock:
            new = study_id not in self._studies or self._studies[study_id].last_finished_trial_id < 0
            if new and TrialState.COMPLETE not in wanted:
                # Few trials are in these states, and the caller may never ask for others: nothing is kept.
                rows = _rows().where(_Trial.study_id == study_id, _Trial.state.in_(list(wanted)))
                with self._connect() as connection:
                    found = connection.execute(rows.order_by(_Trial.number)).all()
                    trials: list[FrozenTrial] = [
                        *_build_trials(connection, study_id, found, partial(self.read_curve, study_id))
                    ]
            else:
                self._refresh(study_id, with_open=not wanted <= set(FINISHED))
                if (study_id, wanted) not in self._lists:
                    known = self._studies[study_id].trials
                    chosen = [known[number] for number in sorted(known) if known[number].state in wanted]
                    self._lists[study_id, wanted] = chosen
                trials = list(self._lists[study_id, wanted])
        return copy.deepcopy(trials) if deepcopy else trials

    def get_n_trials(self, study_id: int, state: tuple[TrialState, ...] | TrialState | None = None) -> int:
        states = (state,) if isinstance(state, TrialState) else tuple(TrialState) if state is None else state
        self._backend.get_study_name_from_id(study_id)  # raises KeyError where there is no such study
        query = select(func.count()).where(_Trial.study_id == study_id, _Trial.state.in_(list(states)))
        with self._connect() as connection:
            return int(connection.execute(query).scalar_one())

    def delete_study(self, study_id: int) -> None:
        super().delete_study(study_id)
        self._forget_lists(study_id)

    def _refresh(self, study_id: int, *, with_open: bool) -> None:
        """Read what is new: trials that have ended since, and the open ones if `with_open`."""
        study = self._studies.setdefault(study_id, StudyInfo())
        with self._connect() as connection, collection_paused():
            found = _changed_rows(connection, study_id, study.last_finished_trial_id, study.unfinished_trial_ids)
            study.unfinished_trial_ids.update(row.trial_id for row in found)
            wanted = [row for row in found if with_open or row.state in FINISHED]
            trials = _build_trials(connection, study_id, wanted, partial(self.read_curve, study_id))
        if trials:
            self._add_trials_to_cache(study_id, list(trials))
            self._forget_lists(study_id)
            finished = {trial._trial_id for trial in trials if trial.state.is_finished()}
            study.unfinished_trial_ids -= finished
            study.last_finished_trial_id = max(study.last_finished_trial_id, *finished, -1)
        elif not study.trials:
            self._backend.get_study_name_from_id(study_id)  # raises KeyError where there is no such study

    def _forget_lists(self, study_id: int) -> None:
        self._lists = {key: known for key, known in self._lists.items() if key[0] != study_id}

    def read_curve(self, study_id: int, trial: LazyTrial) -> None:
        """Read the intermediate values of a trial.

        Whoever asks a second time is likely to ask on: then those of the next trials in the same state come along.
        """
        asks_on = self._asked_before and trial.state.is_finished()
        self._asked_before = True
        others: list[LazyTrial] = []
        if asks_on and study_id in self._studies:
            trials = self._studies[study_id].trials
            later = (other for number, other in sorted(trials.items()) if number > trial.number)
            alike = (other for other in later if other.state == trial.state and isinstance(other, LazyTrial))
            others = list(islice((other for other in alike if not other.has_curve), _AT_ONCE))
        last = others[-1]._trial_id if others else trial._trial_id
        kind = type_coerce(_Step.intermediate_value_type, String)
        query = (
            select(_Step.trial_id, _Step.step, _Step.intermediate_value, kind)
            .join(_Trial, _Trial.trial_id == _Step.trial_id)
            .where(_Trial.study_id == study_id, _Step.trial_id.between(trial._trial_id, last))
        )
        if asks_on:
            query = query.where(_Trial.state == trial.state)
        kinds = _Step.TrialIntermediateValueType
        finite = kinds.FINITE.name  # an enum's name is slow to find, and there may be a million rows
        found: dict[int, dict[int, float]] = defaultdict(dict)
        with self._connect() as connection, collection_paused():
            rows = connection.execute(query).partitions(_ROWS_AT_ONCE)
            for trial_id, step, value, name in chain.from_iterable(rows):
                if name != finite:
                    value = _Step.stored_repr_to_intermediate_value(value, kinds[name])
                found[trial_id][step] = value
        for each in (trial, *others):
            each.intermediate_values = found.get(each._trial_id, {})

    def _connect(self) -> Connection:
        return self._backend.engine.execution_options(isolation_level="AUTOCOMMIT").connect()


def _rows() -> Any:
    """Selects id, number, state and times of trials."""
    return select(
        _Trial.trial_id, _Trial.number, _Trial.state, _Trial._datetime_start_utc, _Trial._datetime_complete_utc
    )


def _changed_rows(connection: Connection, study_id: int, after: int, unfinished: Collection[int]) -> _Rows:
    """The rows of trials with an id above `after`, and of those that were unfinished, by id."""
    query = _rows().where(_Trial.study_id == study_id).order_by(_Trial.trial_id)
    known = sorted(trial_id for trial_id in unfinished if trial_id <= after)
    if len(known) > _MOST_NAMED:
        rows = connection.execute(query.where(_Trial.trial_id >= known[0])).all()
        return [row for row in rows if row.trial_id > after or row.trial_id in unfinished]
    new = _Trial.trial_id > after
    return connection.execute(query.where(or_(new, _Trial.trial_id.in_(known)) if known else new)).all()


def _build_trials(connection: Connection, study_id: int, rows: _Rows, read_curve: ReadCurve) -> list[LazyTrial]:
    """The trials of these rows, with all but their intermediate values."""
    ids = [row.trial_id for row in rows]

    def grouped(*columns: Any) -> Mapping[int, list[Any]]:
        """These columns of these trials, by the first one, the trial's id."""
        found: dict[int, list[Any]] = defaultdict(list)
        if not ids:
            return found
        if len(ids) <= _MOST_NAMED:
            query = select(*columns).where(columns[0].in_(ids))
        else:
            within = _Trial.study_id == study_id, columns[0] >= min(ids)
            query = select(*columns).join(_Trial, _Trial.trial_id == columns[0]).where(*within)
        for row in connection.execute(query):
            found[row[0]].append(row)
        return found

    params = grouped(_Param.trial_id, _Param.param_id, _Param.param_name, _Param.param_value, _Param.distribution_json)
    values = grouped(_Value.trial_id, _Value.objective, _Value.value, _Value.value_type)
    user = grouped(_UserAttr.trial_id, _UserAttr.key, _UserAttr.value_json)
    system = grouped(_SystemAttr.trial_id, _SystemAttr.key, _SystemAttr.value_json)
    trials = []
    for trial_id, number, state, start, complete in rows:
        # Parameters in the order in which they were suggested, values in that of the objectives.
        suggested = [
            (name, shared_distribution(text), value)
            for _, _, name, value, text in sorted(params[trial_id], key=lambda row: row[1])
        ]
        objectives = sorted(values[trial_id], key=lambda row: row[1])
        trial = LazyTrial.of(
            [(key, text) for _, key, text in user[trial_id]],
            [(key, text) for _, key, text in system[trial_id]],
            read_curve,
            trial_id=trial_id,
            number=number,
            state=state,
            datetime_start=_local(start),
            datetime_complete=_local(complete),
            values=[_Value.stored_repr_to_value(value, kind) for _, _, value, kind in objectives] or None,
            params={name: distribution.to_external_repr(value) for name, distribution, value in suggested},
            distributions={name: distribution for name, distribution, _ in suggested},
        )
        trials.append(trial)
    return trials


def _local(moment: datetime | None) -> datetime | None:
    """Optuna stores UTC, and shows local time."""
    return None if moment is None else moment.replace(tzinfo=UTC).astimezone().replace(tzinfo=None)


class RelationalBackend(Backend):
    """Reads with small queries; writes a batch in one transaction: all of it, or nothing."""

    storage: RDBStorage

    def __init__(self, rdb: RDBStorage) -> None:
        super().__init__(rdb)
        self._reading = rdb.engine.execution_options(isolation_level="AUTOCOMMIT")

    def overview(self, study_id: int) -> Overview:
        in_study = _Trial.study_id == study_id
        states = select(_Trial.state, func.count()).where(in_study, _Trial.state.in_(FINISHED)).group_by(_Trial.state)
        with self._reading.connect() as connection:
            finished = Counter({row[0]: row[1] for row in connection.execute(states)})
            unfinished = _open_trials(connection, in_study, _Trial.state.in_(UNFINISHED))
            attribute = _StudyAttr.study_id == study_id, _StudyAttr.key == CHANGES
            changes = connection.execute(select(_StudyAttr.value_json).where(*attribute)).scalar()
        return overview_of(finished, unfinished, json.loads(changes) if changes else ())

    def latest_ends(self, study_id: int, most: int, states: tuple[TrialState, ...] = SUCCESSFUL) -> Sequence[datetime]:
        ended = _Trial._datetime_complete_utc
        query = select(ended).where(_Trial.study_id == study_id, _Trial.state.in_(states), ended.is_not(None))
        with self._reading.connect() as connection:
            found = connection.execute(query.order_by(ended.desc()).limit(most)).scalars().all()
        return sorted(moment for each in found if (moment := _local(each)) is not None)

    def open_trial(self, trial_id: int) -> OpenTrial:
        with self._reading.connect() as connection:
            found = _open_trials(connection, _Trial.trial_id == trial_id)
        if not found:
            raise KeyError(f"no trial has the id {trial_id}")
        return found[0]

    def apply(self, operations: Sequence[Operation]) -> None:
        with Session(self.storage.engine) as session, session.begin():
            _write(session, operations)

    def commit(self, study_id: int, operations: Sequence[Operation], new: Sequence[FrozenTrial]) -> dict[str, Place]:
        with Session(self.storage.engine) as session, session.begin():
            _write(session, operations)
            if not new:
                return {}
            # The study's row is locked, as Optuna does it, so that others who make trials count right.
            session.execute(select(models.StudyModel.study_id).filter_by(study_id=study_id).with_for_update())
            first = session.execute(select(func.count()).where(_Trial.study_id == study_id)).scalar_one()
            rows = [
                _Trial(study_id=study_id, number=number, state=trial.state, datetime_start=trial.datetime_start)
                for number, trial in enumerate(new, first)
            ]
            session.add_all(rows)
            session.flush()  # gives them their ids
            attrs = [
                {"trial_id": int(row.trial_id), "key": key, "value_json": json.dumps(value)}
                for row, trial in zip(rows, new, strict=True)
                for key, value in trial.system_attrs.items()
            ]
            if attrs:
                session.execute(insert(_SystemAttr), attrs)
            places = [Place(int(row.trial_id), int(row.number)) for row in rows]
        tokens = (token_of(trial) for trial in new)
        return {token: place for token, place in zip(tokens, places, strict=True) if token}


def _open_trials(connection: Connection, *conditions: Any) -> list[OpenTrial]:
    """The trials that fulfil the conditions, by number, each with those of its attributes that the ledger looks at."""
    wanted = and_(_SystemAttr.trial_id == _Trial.trial_id, _SystemAttr.key.in_(STATUS_ATTRS))
    columns = _Trial.trial_id, _Trial.number, _Trial.state, _SystemAttr.key, _SystemAttr.value_json
    query = select(*columns).outerjoin(_SystemAttr, wanted).where(*conditions).order_by(_Trial.number)
    attrs: dict[tuple[int, int, TrialState], dict[str, Any]] = {}
    for trial_id, number, state, key, value in connection.execute(query):  # a row for each attribute, one for none
        known = attrs.setdefault((trial_id, number, state), {})
        if key is not None:
            known[key] = json.loads(value)
    return [OpenTrial(*trial, *(known.get(key) for key in STATUS_ATTRS)) for trial, known in attrs.items()]


def _write(session: Session, operations: Sequence[Operation]) -> None:
    """Write operations: all of one kind together, the last of several for one value counts."""
    rows: dict[Any, list[dict[str, Any]]] = defaultdict(list)  # by table
    states: dict[int, TrialState] = {}
    starts: list[SetStart] = []
    for operation in operations:
        trial = {"trial_id": operation.trial_id}
        match operation:
            case SetIntermediate(step=step, value=value):
                stored, kind = _Step.intermediate_value_to_stored_repr(value)
                row = {**trial, "step": step, "intermediate_value": stored, "intermediate_value_type": kind}
                rows[_Step].append(row)
            case SetParam(name=name, internal=internal, distribution=distribution):
                text = distribution_to_json(distribution)
                rows[_Param].append({**trial, "param_name": name, "param_value": internal, "distribution_json": text})
            case SetUserAttr(key=key, value=value):
                rows[_UserAttr].append({**trial, "key": key, "value_json": json.dumps(value)})
            case SetSystemAttr(key=key, value=value):
                rows[_SystemAttr].append({**trial, "key": key, "value_json": json.dumps(value)})
            case SetState(state=state, values=values):
                states[operation.trial_id] = state
                for objective, value in enumerate(values or ()):
                    stored, kind = _Value.value_to_stored_repr(value)
                    rows[_Value].append({**trial, "objective": objective, "value": stored, "value_type": kind})
            case SetStart():
                starts.append(operation)
    for model, key in ((_Step, "step"), (_Param, "param_name"), (_SystemAttr, "key"), (_UserAttr, "key")):
        _write_values(session, model, key, rows[model])
    for state in set(states.values()):  # one statement for each state
        changes: dict[str, Any] = {"state": state}
        if state == TrialState.RUNNING:
            changes["datetime_start"] = datetime.now()
        elif state.is_finished():
            changes["datetime_complete"] = datetime.now()
        changed = _Trial.trial_id.in_([trial_id for trial_id, wanted in states.items() if wanted == state])
        session.execute(update(_Trial).where(changed).values(changes), execution_options=_IN_BULK)
    _write_values(session, _Value, "objective", rows[_Value])
    for start in starts:
        begun = update(_Trial).where(_Trial.trial_id == start.trial_id).values(datetime_start=start.at)
        session.execute(begun, execution_options=_IN_BULK)


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
