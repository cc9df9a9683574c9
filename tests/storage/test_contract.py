"""Optuna's own tests of a storage, over each of ours as an agent uses it; and what is read against plain Optuna.

All of them hold with Optuna's private names and without them. Without them they run on SQLite and a journal file: there
PostgreSQL is driven by the same class of Optuna's as SQLite, and Redis is opened by Optuna's own class in any case.
"""

from __future__ import annotations

import copy
import math
import pickle
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import optuna
import pytest
from optuna.storages import BaseStorage, RDBStorage
from optuna.testing.pytest_storages import StorageTestCase
from optuna.trial import FrozenTrial, TrialState

from aimlhpo.storage.base import CHANGES, backend_of, own
from aimlhpo.storage.open import engine_url, open_storage
from aimlhpo.storage.optuna_internals import PUBLIC_ONLY
from tests.conftest import STORAGE_KINDS
from tests.storage.studies import as_text, make_trials


def each_way(*kinds: str) -> list[Any]:
    """Each kind of storage with private names, those that differ without them also by the public interface alone."""
    public = [kind for kind in kinds if kind in ("sqlite", "journal")]
    return [pytest.param((kind, False), id=kind) for kind in kinds] + [
        pytest.param((kind, True), id=f"{kind}, public interface") for kind in public
    ]


@pytest.fixture
def new_url(
    make_storage_url: Callable[[str], str], monkeypatch: pytest.MonkeyPatch
) -> Callable[[tuple[str, bool]], str]:
    """Gives the URL of a new, empty storage; with True, everything opens it by the public interface alone."""

    def new(param: tuple[str, bool]) -> str:
        kind, public = param
        if public:
            monkeypatch.setenv(PUBLIC_ONLY, "1")
        return make_storage_url(kind)

    return new


@pytest.fixture(params=each_way("sqlite", "journal"))
def storage(request: pytest.FixtureRequest, new_url: Callable[[tuple[str, bool]], str]) -> BaseStorage:
    return own(open_storage(new_url(request.param)))


class TestStorage(StorageTestCase):
    """What Optuna asks of every storage."""

    def test_pickle_storage(self, storage: BaseStorage) -> None:
        super().test_pickle_storage(storage.inner)  # type: ignore[attr-defined]


@pytest.fixture(params=each_way("sqlite", "postgresql"))
def database_url(request: pytest.FixtureRequest, new_url: Callable[[tuple[str, bool]], str]) -> str:
    return new_url(request.param)


@pytest.fixture(params=each_way(*STORAGE_KINDS))
def storage_url(request: pytest.FixtureRequest, new_url: Callable[[tuple[str, bool]], str]) -> str:
    return new_url(request.param)


def test_trials_are_read_as_optuna_reads_them(database_url: str) -> None:
    study = make_trials(open_storage(database_url))
    plain = RDBStorage(engine_url(database_url)).get_all_trials(study._study_id)
    fresh = open_storage(database_url).get_all_trials(study._study_id, deepcopy=False)
    assert len(plain) == 7
    assert [as_text(trial) for trial in fresh] == [as_text(trial) for trial in plain]


def test_many_trials_are_read_in_few_pieces(database_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("aimlhpo.storage.sql._MOST_NAMED", 2)
    monkeypatch.setattr("aimlhpo.storage.sql._AT_ONCE", 2)
    test_trials_are_read_as_optuna_reads_them(database_url)


def test_what_others_finish_is_seen(database_url: str) -> None:
    reader = optuna.create_study(study_name="s", storage=open_storage(database_url))
    writer = optuna.load_study(study_name="s", storage=open_storage(database_url))
    complete = (TrialState.COMPLETE,)
    first, second = writer.ask(), writer.ask()
    second.report(0.5, step=1)
    assert reader.get_trials(deepcopy=False, states=complete) == []
    writer.tell(second, 2.0)
    assert [trial.number for trial in reader.get_trials(deepcopy=False, states=complete)] == [1]
    assert [trial.state.name for trial in reader.get_trials(deepcopy=False)] == ["RUNNING", "COMPLETE"]
    first.suggest_float("x", 0, 1)
    writer.tell(first, 1.0)
    assert [trial.values for trial in reader.get_trials(deepcopy=False, states=complete)] == [[1.0], [2.0]]
    assert reader.trials[0].params == first.params
    assert reader.trials[1].intermediate_values == {1: 0.5}


def test_copies_of_a_read_trial_are_whole(database_url: str) -> None:
    study = make_trials(open_storage(database_url))
    for made in (copy.copy, copy.deepcopy, lambda trial: pickle.loads(pickle.dumps(trial))):
        trial = open_storage(database_url).get_all_trials(study._study_id, deepcopy=False)[0]
        assert type(made(trial)) is FrozenTrial
        assert made(trial).intermediate_values[10] == math.inf


def test_few_trials_are_read_alone_and_counted(storage_url: str) -> None:
    study = make_trials(open_storage(storage_url))
    fresh = open_storage(storage_url)
    failed = fresh.get_all_trials(study._study_id, deepcopy=False, states=(TrialState.FAIL,))
    assert [(trial.number, trial.intermediate_values[30]) for trial in failed] == [(5, 5.0)]
    assert fresh.get_n_trials(study._study_id) == 7
    assert fresh.get_n_trials(study._study_id, TrialState.COMPLETE) == 5


def test_latest_ends_come_in_order(storage_url: str) -> None:
    study = make_trials(open_storage(storage_url))
    ends = [trial.datetime_complete for trial in study.trials if trial.state == TrialState.COMPLETE]
    backend = backend_of(open_storage(storage_url))
    assert list(backend.latest_ends(study._study_id, 3)) == ends[-3:]
    failed = [trial.datetime_complete for trial in study.trials if trial.state == TrialState.FAIL]
    assert list(backend.latest_ends(study._study_id, 3, (TrialState.FAIL,))) == failed


def test_an_overview_tells_at_once_what_others_have_changed(storage_url: str) -> None:
    study = make_trials(open_storage(storage_url))
    backend = backend_of(open_storage(storage_url))
    before = backend.overview(study._study_id)
    assert (before.complete, before.failed, list(before.changes)) == (5, 1, [])
    changes = [{"key": "optuna:n_trials", "value": 9}, {"key": "optuna:patience", "value": {"trials": 3}}]
    study._storage.set_study_system_attr(study._study_id, CHANGES, changes)
    assert list(backend.overview(study._study_id).changes) == changes


def test_no_overview_counts_a_trial_that_ends_meanwhile_twice(storage_url: str) -> None:
    trials = 100
    study = optuna.create_study(study_name="s", storage=open_storage(storage_url))
    running = [study.ask() for _ in range(trials)]
    backend = backend_of(open_storage(storage_url))
    with ThreadPoolExecutor(1) as writer:
        ending = [writer.submit(study.tell, trial, 0.5) for trial in running]
        while not ending[-1].done():
            overview = backend.overview(study._study_id)
            assert overview.complete + len(overview.open) <= trials
    assert all(end.exception() is None for end in ending)
    assert backend.overview(study._study_id).complete == trials
