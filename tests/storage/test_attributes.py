"""What Optuna's own tools show of a study of ours: each metric that was returned, and nothing of our bookkeeping."""

from __future__ import annotations

import math
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna.trial import TrialState, create_trial
from sqlalchemy import event

from aimlhpo.config.paths import StudyPaths
from aimlhpo.ledger.leases import Registry
from aimlhpo.ledger.requests import Claim
from aimlhpo.storage.attributes import (
    RECORD,
    STUDY_ATTR,
    metric_attributes,
    move_study_attributes,
    objective_attributes,
    record_of,
    set_study_attribute,
    study_attributes,
)
from aimlhpo.storage.open import open_storage
from tests.conftest import STORAGE_KINDS
from tests.ledgers import SingleRequestLedger
from tests.project import Project

MEASURING = """
    import time
    from aimlhpo import BaseObjective

    class Objective(BaseObjective):
        def train(self, trial, conf):
            trial.set_user_attr("note", "mine")
            trial.set_user_attr("accuracy", "set while it trained")
            if trial.number == 2:
                raise ValueError("no luck")
            return {"val_loss": conf["model"]["x"], "accuracy": 0.5, "epochs": 3, "converged": True, "data": "digits"}
"""


def test_metrics_stand_where_optunas_tools_look_and_a_trial_fits_a_screen(tmp_path: Path) -> None:
    project = Project(tmp_path, MEASURING, n_trials=4, storage=f"sqlite:///{tmp_path}/s.db")
    project.run()
    study = project.study()
    assert study.user_attrs == {}
    shown = study.trials_dataframe()
    columns = {name.removeprefix("user_attrs_") for name in shown.columns if name.startswith("user_attrs_")}
    assert columns == {"val_loss", "accuracy", "epochs", "converged", "data", "note"}
    complete = shown[shown["state"] == "COMPLETE"]
    assert list(complete["user_attrs_val_loss"]) == list(complete["value_val_loss"])
    assert set(complete["user_attrs_epochs"]) == {3}
    assert set(shown["user_attrs_accuracy"]) == {"set while it trained"}  # the objective's own stays
    assert {record["metrics"]["accuracy"] for record in project.records() if record["metrics"]} == {0.5}
    assert set(study.trials[2].user_attrs) == {"note", "accuracy"}  # it has failed, and returned nothing

    command = [str(Path(sys.executable).with_name("optuna")), "best-trial", "--format", "yaml", "--study-name", "s"]
    found = subprocess.run([*command, "--storage", f"sqlite:///{tmp_path}/s.db"], capture_output=True, text=True)
    printed = found.stdout
    assert "epochs: 3" in printed
    assert "aimlhpo" not in printed
    assert len(printed.splitlines()) <= 24
    assert max(map(len, printed.splitlines())) <= 80


@pytest.mark.parametrize("kind", [*STORAGE_KINDS, "mysql"])
def test_no_name_of_a_metric_costs_a_result(
    kind: str, make_storage_url: Callable[[str], str], tmp_path: Path, both_ways: bool
) -> None:
    """Keys are short, without NUL, and the same to some databases whatever their case."""
    study = optuna.create_study(study_name="s", storage=open_storage(make_storage_url(kind)))
    paths = StudyPaths(tmp_path, "s")
    paths.create()
    ledger = SingleRequestLedger(study, paths, 1, "agent", Registry(paths.leases, 60.0))
    claim = ledger.claim(0, "cpu")
    assert isinstance(claim, Claim)
    study._storage.set_trial_user_attr(claim.trial_id, "Top1", "mine")
    metrics: dict[str, Any] = {
        "loss": 0.5, "Loss": 1.5, "LOSS ": 2.5, "größe": 3, "nan": math.nan, "top1": 0.9, "text": "x" * 2000,
        "": 1, "a\0b": 2, "a\nb": 3, "\ud800": 4, "n" * 512: 5, "n" * 513: 6, "aimlhpo": 7,
    }  # fmt: skip
    assert ledger.finish(claim, TrialState.COMPLETE, [0.5], {"metrics": metrics, "seconds": 1.0})
    (trial,) = study.get_trials()
    assert (trial.state, trial.value) == (TrialState.COMPLETE, 0.5)
    attributes = trial.user_attrs
    assert math.isnan(attributes.pop("nan"))
    assert attributes == {
        "Top1": "mine", "loss": 0.5, "größe": 3, "text": "x" * 2000, "n" * 512: 5, "aimlhpo": 7
    }  # fmt: skip
    assert record_of(trial)["metrics"].keys() == metrics.keys()
    assert objective_attributes(trial) == {"Top1": "mine"}


def test_a_result_takes_one_transaction_however_many_metrics_it_has(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/s.db"
    study = optuna.create_study(study_name="s", storage=open_storage(url))
    paths = StudyPaths(tmp_path, "s")
    paths.create()
    ledger = SingleRequestLedger(study, paths, 2, "agent", Registry(paths.leases, 60.0))
    taken = []
    for metrics in ({}, {f"metric-{number}": float(number) for number in range(50)}):
        claim = ledger.claim(0, "cpu")
        assert isinstance(claim, Claim)
        commits: list[Any] = []
        with following(study._storage._backend.engine, "commit", commits.append):  # type: ignore[attr-defined]
            assert ledger.finish(claim, TrialState.COMPLETE, [0.5], {"metrics": metrics, "seconds": 1.0})
        taken.append(len(commits))
    assert taken[0] == taken[1] > 0
    assert len(study.trials[1].user_attrs) == 50


@contextmanager
def following(engine: Any, name: str, note: Callable[[Any], None]) -> Iterator[None]:
    """Note every event of that name."""
    event.listen(engine, name, note)
    yield
    event.remove(engine, name, note)


def test_metrics_that_were_written_by_a_batch_that_was_cut_off_are_written_again() -> None:
    cut_off = create_trial(
        value=1.0,
        system_attrs={RECORD: {"metrics": {"loss": 1.0, "accuracy": math.nan, "size": 3}}},
        user_attrs={"loss": 1.0, "accuracy": math.nan, "size": "mine"},
    )
    again = {"loss": 0.25, "accuracy": 0.5, "size": 4}
    assert metric_attributes(cut_off, again) == {"loss": 0.25, "accuracy": 0.5}


def test_a_paused_trial_shows_no_metrics_and_its_record_is_the_newest(tmp_path: Path) -> None:
    """Nor does one of an earlier version, which has its first record among the user attributes."""
    study = optuna.create_study(study_name="s", storage=open_storage(f"journal://{tmp_path}/j.journal"))
    paths = StudyPaths(tmp_path, "s")
    paths.create()
    ledger = SingleRequestLedger(study, paths, 1, "agent", Registry(paths.leases, 60.0))
    claim = ledger.claim(0, "cpu")
    assert isinstance(claim, Claim)
    study._storage.set_trial_user_attr(claim.trial_id, "aimlhpo", {"metrics": {"loss": 3.0}, "attempts": 1})
    assert record_of(study.trials[0])["attempts"] == 1
    record = {"metrics": {"loss": 2.0}, "seconds": 1.0, "attempts": 2, "rung": 1}
    assert ledger.finish(claim, TrialState.WAITING, None, record, [(0, 2.0)])
    (trial,) = study.get_trials()
    assert record_of(trial)["attempts"] == 2
    assert trial.user_attrs.keys() == {"aimlhpo"}
    assert objective_attributes(trial) == {}


def test_what_an_earlier_version_noted_of_a_study_is_read_and_moved() -> None:
    study = optuna.create_study()
    study.set_user_attr("mine", 1)
    assert study_attributes(study) == {}
    old = {STUDY_ATTR: {"seed": 1}, "aimlhpo:chosen": {"sampler": 1}, "aimlhpo:ended": {"rule": 2}}
    for key, value in old.items():
        study.set_user_attr(key, value)
    assert study_attributes(study) == old
    set_study_attribute(study, "aimlhpo:ended", {"rule": 3})  # by an agent of today, before the study is signed again
    assert study_attributes(study) == {**old, "aimlhpo:ended": {"rule": 3}}
    move_study_attributes(study)
    set_study_attribute(study, STUDY_ATTR, {"seed": 2})
    assert study_attributes(study) == {**old, "aimlhpo:ended": {"rule": 3}, STUDY_ATTR: {"seed": 2}}
    study.set_user_attr("aimlhpo:ended", {"rule": 4})
    assert study_attributes(study)["aimlhpo:ended"] == {"rule": 3}
    assert study.user_attrs["mine"] == 1
