"""Runs in MLflow, read back with MLflow's own client."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from aimlhpo.errors import ConfigError
from aimlhpo.tracking.mlflow import MlflowTarget
from aimlhpo.tracking.run import Run, StudyEntry, StudyState
from tests.tracking.mlflow_runs import settled

STUDY = StudyEntry("id-1", "digits", {"sampler": "TPESampler", "n_trials": 8}, {"save_path": "/data"})
RUN = Run(3, "RUNNING", began=100.0, parameters={"lr": 0.5, "kind": "adam"}, reports={0: 4.0, 1: 2.0})
CONFIG = {"optimizer:lr": 0.5, "layers:0:units": 8}
FINISHED = replace(
    RUN, state="COMPLETE", ended=200.0, config=CONFIG, reports={0: 4.0, 1: 2.0, 2: 1.0}, metrics={"val_loss": 0.5},
    facts={"state": "COMPLETE", "log": "logs/worker.log"},
)  # fmt: skip


def opened(folder: Path, study: StudyEntry = STUDY) -> MlflowTarget:
    target = MlflowTarget(str(folder), "digits", study, "reports/val_loss")
    target.open()
    return target


def test_a_study_is_a_run_and_its_trials_lie_below(tmp_path: Path) -> None:
    target = opened(tmp_path)
    target.send(FINISHED)
    target.conclude(StudyState(1, {"val_loss": 0.5}))
    found = settled(str(tmp_path))
    (parent,) = found.parents
    assert parent.info.run_name == "digits"
    assert parent.info.status == "RUNNING"
    assert parent.data.params == {"sampler": "TPESampler", "n_trials": "8"}
    assert parent.data.metrics == {"best/val_loss": 0.5}
    run = found.trials[3]
    assert (run.info.run_name, run.info.status) == ("trial 3", "FINISHED")
    assert (run.info.start_time, run.info.end_time) == (100_000, 200_000)
    assert run.data.params == {"lr": "0.5", "kind": "adam", "optimizer:lr": "0.5", "layers:0:units": "8"}
    assert run.data.metrics == {"reports/val_loss": 1.0, "val_loss": 0.5}
    assert found.history(3, "reports/val_loss") == [(0, 4.0), (1, 2.0), (2, 1.0)]
    assert run.data.tags["log"] == "logs/worker.log"


@pytest.mark.parametrize(("state", "status"), [("COMPLETE", "FINISHED"), ("PRUNED", "KILLED"), ("FAIL", "FAILED")])
def test_the_status_says_how_a_trial_has_ended(state: str, status: str, tmp_path: Path) -> None:
    opened(tmp_path).send(replace(FINISHED, state=state, facts={"state": state}))
    run = settled(str(tmp_path)).trials[3]
    assert (run.info.status, run.data.tags["state"]) == (status, state)


def test_an_interrupted_trial_goes_on_in_the_same_run(tmp_path: Path) -> None:
    target = opened(tmp_path)
    target.send(RUN)
    assert settled(str(tmp_path)).statuses == {"RUNNING": 1}
    target.send(replace(RUN, state="WAITING"))
    assert settled(str(tmp_path)).statuses == {"SCHEDULED": 1}
    another = opened(tmp_path)
    another.send(RUN)
    assert settled(str(tmp_path)).statuses == {"RUNNING": 1}
    another.send(FINISHED)
    found = settled(str(tmp_path))
    assert len(found.parents) == 1
    assert found.history(3, "reports/val_loss") == [(0, 4.0), (1, 2.0), (2, 1.0)]


def test_what_is_there_is_not_sent_again_nor_what_was_deleted(tmp_path: Path) -> None:
    opened(tmp_path).send(FINISHED)
    opened(tmp_path).send(FINISHED)
    before = settled(str(tmp_path))
    assert before.history(3, "val_loss") == [(0, 0.5)]
    before.client.delete_run(before.trials[3].info.run_id)
    opened(tmp_path).send(FINISHED)
    assert settled(str(tmp_path)).trials == {}


def test_studies_of_one_name_are_kept_apart(tmp_path: Path) -> None:
    opened(tmp_path).send(FINISHED)
    opened(tmp_path, replace(STUDY, id="id-2")).send(replace(FINISHED, number=4))
    found = settled(str(tmp_path))
    assert len(found.parents) == 2
    assert found.trials[3].data.tags["mlflow.parentRunId"] != found.trials[4].data.tags["mlflow.parentRunId"]


def test_names_and_lengths_that_mlflow_does_not_know(tmp_path: Path) -> None:
    config = {f"layer:{number}": number for number in range(130)}
    odd = {"loss(kg/m²)": 1.0, "../up": 2.0, "a//b": 3.0, "worst": float("nan"), "most": float("inf")}
    reports = dict.fromkeys(range(2500), 1.0)
    run = replace(FINISHED, config=config | {"text": "x" * 9000}, metrics=odd, reports=reports, facts={"t": "y" * 9000})
    opened(tmp_path).send(run)
    data = settled(str(tmp_path)).trials[3].data
    assert len(data.params) == 130 + 1 + 2
    assert data.params["text"] == "x" * 500
    assert {"loss_kg/m²_", "up", "a/b", "worst", "most"} <= set(data.metrics)
    assert len(settled(str(tmp_path)).history(3, "reports/val_loss")) == 2500


def test_a_variable_that_is_not_set_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="NOT_SET_HERE"):
        MlflowTarget("http://${NOT_SET_HERE}", "e", STUDY, "r").open()
