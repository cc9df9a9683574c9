"""Optuna's private names are used where they were tested; elsewhere its public interface does the same, and says so."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from pathlib import Path

import optuna
import pytest
from optuna.storages import JournalStorage, RDBStorage
from optuna.trial import TrialState

from aimlhpo.storage import optuna_internals
from aimlhpo.storage.base import Backend, backend_of
from aimlhpo.storage.journal import Journal, JournalBackend
from aimlhpo.storage.open import open_storage
from aimlhpo.storage.optuna_internals import (
    PUBLIC_ONLY,
    LazyTrial,
    collection_paused,
    supported,
)
from aimlhpo.storage.sql import Database, RelationalBackend
from tests.project import QUADRATIC, Project

WARNING = "used by their public interface"


@pytest.fixture(autouse=True)
def nothing_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    """As in a new process."""
    monkeypatch.setattr(optuna_internals, "_reported", False)


def test_the_installed_version_is_supported(caplog: pytest.LogCaptureFixture) -> None:
    assert supported()
    assert supported(relational=True)
    assert not caplog.records


@pytest.mark.parametrize(
    ("version", "expected"), [("5.0.0", True), ("5.9.1rc1", True), ("4.9.0", False), ("6.0.0.dev", False)]
)
def test_versions_outside_the_tested_range_are_not_supported(
    version: str, expected: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(optuna, "__version__", version)
    assert supported() is expected


def test_a_missing_name_is_noticed_and_told_once(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.delattr(optuna_internals.JournalStorageReplayResult, "_apply_create_trial")
    optuna_internals._first_missing.cache_clear()
    try:
        assert not supported()
        assert not supported(relational=True)
    finally:
        optuna_internals._first_missing.cache_clear()
    (record,) = caplog.records
    assert WARNING in record.getMessage()
    assert "JournalStorageReplayResult has no _apply_create_trial" in record.getMessage()


@pytest.mark.parametrize(
    ("scheme", "public", "ours", "backend"),
    [("sqlite", RDBStorage, Database, RelationalBackend), ("journal", JournalStorage, Journal, JournalBackend)],
)
def test_storages_are_of_optunas_own_classes_where_nothing_else_is_supported(
    scheme: str, public: type, ours: type, backend: type, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = f"{scheme}:///{tmp_path}/s"
    assert type(open_storage(url)) is ours
    assert type(backend_of(open_storage(url))) is backend
    monkeypatch.setenv(PUBLIC_ONLY, "1")
    assert type(open_storage(url)) is public
    assert type(backend_of(open_storage(url))) is Backend


@pytest.mark.parametrize("scheme", ["sqlite", "journal"])
def test_a_study_runs_by_the_public_interface_alone(
    scheme: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two workers end the budget exactly; what the study holds is then read with the private names as well."""
    project = Project(
        tmp_path, QUADRATIC, storage=f"{scheme}:///{tmp_path}/s", n_trials=6, pruner={"type": "MedianPruner"}
    )
    monkeypatch.setenv(PUBLIC_ONLY, "1")
    done = project.run("--local", "2")
    assert done.stderr.count(WARNING) == 1
    public = project.study().trials
    assert project.run("-r", "1", expect=3).stderr.count(WARNING) == 1
    monkeypatch.delenv(PUBLIC_ONLY)
    assert project.study().trials == public
    assert len(public) == 6
    assert {trial.state for trial in public} <= {TrialState.COMPLETE, TrialState.PRUNED}
    assert all(trial.intermediate_values and trial.params for trial in public)
    assert len((project.save_path / "results.csv").read_text().splitlines()) == 7


class ReadMeanwhile(list[tuple[str, str]]):
    """Texts of attributes: while one thread reads them, another one reads them, too."""

    trial: LazyTrial
    busy = False

    def __iter__(self) -> Iterator[tuple[str, str]]:
        if not self.busy:
            self.busy = True
            assert self.trial.user_attrs == {"by": "us"}
        return super().__iter__()


class NoCurves:
    def read(self, trial: LazyTrial) -> None:
        trial.intermediate_values = {}


def test_two_threads_read_the_same_attributes() -> None:
    texts = ReadMeanwhile([("by", '"us"')])
    times = {"datetime_start": None, "datetime_complete": None}
    known = {"trial_id": 0, "number": 0, "state": TrialState.FAIL, "values": None, "params": {}, "distributions": {}}
    texts.trial = trial = LazyTrial.of(texts, [], NoCurves(), **known, **times)
    assert trial.user_attrs == {"by": "us"}


def test_collector_rests_within_and_goes_on_after_an_error() -> None:
    with collection_paused():
        assert not gc.isenabled()
    with pytest.raises(OSError, match="unreadable"):
        _read_what_is_unreadable()
    assert gc.isenabled()


def _read_what_is_unreadable() -> None:
    with collection_paused():
        raise OSError("unreadable")


def test_who_has_turned_it_off_keeps_it_off() -> None:
    gc.disable()
    try:
        with collection_paused():
            pass
        assert not gc.isenabled()
    finally:
        gc.enable()


def test_collector_is_on_in_a_process_that_has_read_a_study(storage_url: str) -> None:
    study = optuna.create_study(study_name="s", storage=open_storage(storage_url))
    study.add_trial(optuna.trial.create_trial(value=1.0))
    again = optuna.load_study(study_name="s", storage=open_storage(storage_url))
    assert len(again.trials) == 1
    assert gc.isenabled()
