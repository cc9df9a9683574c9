"""What the pruner is asked: about every report of a batch where it has rungs, and by one of several metrics."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import optuna
import pytest
from optuna.pruners import BasePruner, HyperbandPruner, MedianPruner, PatientPruner, SuccessiveHalvingPruner
from optuna.trial import TrialState, create_trial

from aimlhpo.agent.trial_store import Pruning
from aimlhpo.storage.base import own
from tests.project import Project

TWO_METRICS = """
    from aimlhpo import BaseObjective
    from aimlhpo.callbacks import report_or_prune

    class Objective(BaseObjective):
        def train(self, trial, conf):
            x = conf["model"]["x"]
            for step in range(4):
                report_or_prune(trial, x, step)
            return {"val_loss": x, "seconds": 1 - x}
"""


def study_with(pruner: BasePruner, *finished: Mapping[int, float], directions: int = 1) -> optuna.Study:
    storage = own(optuna.storages.InMemoryStorage())
    study = optuna.create_study(study_name="s", storage=storage, directions=["minimize"] * directions, pruner=pruner)
    for reports in finished:
        study.add_trial(create_trial(values=[9.0] * directions, intermediate_values=dict(reports)))
    return study


def running(study: optuna.Study, reports: Mapping[int, float]) -> int:
    storage = study._storage
    trial_id = storage.create_new_trial(study._study_id)
    for step, value in reports.items():
        storage.set_trial_intermediate_value(trial_id, step, value)
    return int(trial_id)


def test_a_batch_of_reports_visits_each_rung_with_its_own_value() -> None:
    study = study_with(SuccessiveHalvingPruner(min_resource=1, reduction_factor=3))
    reports = {step: 1.0 / (1 + step) for step in range(1, 6)}
    trial_id = running(study, reports)
    assert not Pruning(study, 0).decide(trial_id, reports)
    rungs = study._storage.get_trial(trial_id).system_attrs
    assert rungs == {"completed_rung_0": 1.0 / 2, "completed_rung_1": 1.0 / 4}


def test_what_a_rung_has_decided_stays_when_the_trial_reports_on() -> None:
    study = study_with(SuccessiveHalvingPruner(min_resource=1, reduction_factor=3))
    pruning = Pruning(study, 0)
    assert not pruning.decide(running(study, {1: 0.0}), [1])
    loser = running(study, {1: 1.0})
    assert pruning.decide(loser, [1])
    study._storage.set_trial_intermediate_value(loser, 2, -5.0)
    assert pruning.decide(loser, [2])


@pytest.mark.parametrize(
    "pruner",
    [
        HyperbandPruner(min_resource=1, max_resource=2, reduction_factor=2),
        PatientPruner(SuccessiveHalvingPruner(min_resource=1, reduction_factor=2), patience=0),
    ],
)
def test_other_pruners_with_rungs_visit_them_too(pruner: BasePruner) -> None:
    study = study_with(pruner)
    trial_id = running(study, {1: 0.5, 2: 0.6, 3: 0.7, 4: 0.8})
    Pruning(study, 0).decide(trial_id, [1, 2, 3, 4])
    assert study._storage.get_trial(trial_id).system_attrs


@pytest.mark.parametrize("name", ["MedianPruner", "SuccessiveHalvingPruner", "HyperbandPruner", "WilcoxonPruner"])
def test_one_of_several_metrics_decides(name: str) -> None:
    more = {"max_resource": 9} if name == "HyperbandPruner" else {}
    more = {"n_startup_trials": 1} if name == "MedianPruner" else more
    good = {step: float(step % 3) for step in range(9)}
    study = study_with(getattr(optuna.pruners, name)(**more), good, directions=2)
    pruning = Pruning(study, 1)
    pruning.decide(running(study, good), good)
    bad = [{step: 50.0 * worse + step for step in range(9)} for worse in range(1, 7)]  # Hyperband has several brackets
    assert any(pruning.decide(running(study, reports), reports) for reports in bad)


def test_several_metrics_without_a_named_one_are_never_pruned() -> None:
    study = study_with(MedianPruner(n_startup_trials=0), {0: 0.0}, directions=2)
    assert not Pruning(study, None).decide(running(study, {0: 9.0}), [0])


@pytest.mark.parametrize("sampler", ["TPESampler", "NSGAIISampler"])
def test_a_study_with_two_metrics_prunes_by_the_named_one(sampler: str, tmp_path: Path) -> None:
    project = Project(
        tmp_path, TWO_METRICS, n_trials=12, metric=["val_loss", "seconds"], direction=["minimize", "maximize"],
        sampler={"type": sampler, "seed": 1} | ({"n_startup_trials": 2} if sampler == "TPESampler" else {}),
        pruner={"type": "ThresholdPruner", "upper": 0.5, "metric": "val_loss"}, pruning="strict",
    )  # fmt: skip
    project.run()
    trials = project.study().trials
    assert len(trials) == 12
    for trial in trials:
        assert (trial.state == TrialState.PRUNED) == (trial.params["x"] > 0.5), trial
    assert {trial.state for trial in trials} == {TrialState.COMPLETE, TrialState.PRUNED}
