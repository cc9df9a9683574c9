"""The garbage collector rests while a study is read, and goes on afterwards."""

from __future__ import annotations

import gc

import optuna
import pytest

from aimlhpo.storage.open import open_storage
from aimlhpo.storage.optuna_internals import collection_paused


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
