"""What is told of a trial."""

from __future__ import annotations

from pathlib import Path

from optuna.trial import TrialState

from aimlhpo.check.settings import load_config
from aimlhpo.search.warm_start import begin_study
from aimlhpo.tracking.run import Run, RunReader, version_of
from tests.project import Project


def runs(project: Project, *overrides: str) -> dict[int, Run]:
    reader = RunReader(load_config(project.hyperparameters, project.model, overrides))
    return {trial.number: reader.read(trial) for trial in project.study().trials}


def test_a_finished_trial_is_told_whole(tmp_path: Path) -> None:
    objective = """
        from aimlhpo import BaseObjective

        class Objective(BaseObjective):
            def train(self, trial, conf):
                conf["model"]["units"] = 8
                trial.report(0.5, 0)
                trial.report(0.25, 1)
                trial.set_user_attr("note", [1, 2])
                return {"val_loss": 0.125, "name": "adam", "good": True}
    """
    project = Project(tmp_path, objective=objective, n_trials=1)
    project.model.write_text("model: {x: 0.9, units: 4, layers: [{w: 1}, {w: 2}], tags: [a, b]}\n")
    project.run()
    run = runs(project)[0]
    assert run.state == "COMPLETE"
    assert run.reports == {0: 0.5, 1: 0.25}
    assert run.metrics == {"val_loss": 0.125, "good": 1.0}
    assert list(run.parameters) == ["x"]
    assert run.config == {
        "model:x": run.parameters["x"], "model:units": 8, "model:layers:0:w": 1, "model:layers:1:w": 2,
        "model:tags": ["a", "b"],
    }  # fmt: skip
    assert run.facts["note"] == "[1, 2]"
    assert run.facts["name"] == "adam"
    assert not run.facts.keys() & {"val_loss", "good", "aimlhpo"}  # metrics are no tags, nor is the record
    assert run.facts["log"].startswith("logs/worker-")
    assert run.began is not None
    assert run.ended is not None
    assert run.began < run.ended


def test_a_trial_on_its_way_and_one_that_failed_early(tmp_path: Path) -> None:
    project = Project(tmp_path)
    study = begin_study(project.config)
    under_way, without_parameters = study.ask(), study.ask()
    before = version_of(study.trials[0])
    under_way.suggest_float("x", 0.0, 1.0)
    under_way.report(1.0, 3)
    study.tell(without_parameters, state=TrialState.FAIL)
    assert version_of(study.trials[0]) != before
    first, second = runs(project).values()
    assert (first.state, first.is_finished, first.reports, first.config) == ("RUNNING", False, {3: 1.0}, {})
    assert (second.state, second.is_finished, second.parameters, second.config) == ("FAIL", True, {}, {})


def test_reports_bear_the_name_of_what_is_reported(tmp_path: Path) -> None:
    project = Project(tmp_path)
    assert RunReader(project.config).reported == "reports/val_loss"
    two = ("optuna:metric=[a, b]", "optuna:direction=[minimize, maximize]")
    config = load_config(project.hyperparameters, project.model, two)
    assert RunReader(config).reported == "reports/value"
    config = load_config(
        project.hyperparameters, project.model, (*two, "optuna:pruner:type=MedianPruner", "optuna:pruner:metric=b")
    )
    assert RunReader(config).reported == "reports/b"
