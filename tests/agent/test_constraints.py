"""Studies with constraints: which trial is the best, what is stored, and what a user is told."""

from __future__ import annotations

import csv
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from aimlhpo.search.warm_start import begin_study
from tests.project import Project

BEST_IS_OUTSIDE = ["x_seen >= 0.7", "val_loss < 4 * x"]


def rows(project: Project) -> list[dict[str, str]]:
    with (project.save_path / "results.csv").open() as file:
        return list(csv.DictReader(file))


def status_of(project: Project, *options: str) -> str:
    command = [sys.executable, "-m", "aimlhpo", "status", str(project.save_path), *options]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def test_the_best_trial_keeps_the_constraints(tmp_path: Path) -> None:
    project = Project(tmp_path, constraints=BEST_IS_OUTSIDE, storage="journal", seed=3, n_trials=12)
    done = project.run()

    study = project.study()
    assert study.best_trial.params["x"] >= 0.7 > min(study.trials, key=lambda trial: trial.values[0]).params["x"]
    best = study.best_trial
    assert best.constraints == {
        "val_loss < 4 * x": pytest.approx(best.values[0] - 4 * best.params["x"]),
        "x_seen >= 0.7": pytest.approx(0.7 - best.params["x"]),
    }
    feasible = [trial for trial in study.trials if trial.params["x"] >= 0.7]
    assert f"{len(feasible)} of 12 complete trials are feasible" in done.stdout
    assert f"(trial {best.number})" in done.stdout
    assert f"# trial: {best.number}\n" in (project.save_path / "best.yml").read_text()

    table = rows(project)
    assert [row["feasible"] == "True" for row in table] == [trial in feasible for trial in study.trials]
    stored = [trial.constraints["x_seen >= 0.7"] for trial in study.trials]
    assert [float(row["constraint: x_seen >= 0.7"]) for row in table] == stored

    status = status_of(project)
    assert f"feasible {len(feasible)} of 12 complete trials" in status


def test_without_a_feasible_trial_there_is_no_best(tmp_path: Path) -> None:
    project = Project(tmp_path, constraints="x_seen >= 2", n_trials=3)
    done = project.run(expect=4)
    assert "no trial is feasible: 3 are complete" in done.stdout
    assert not (project.save_path / "best.yml").exists()
    status = status_of(project, "--json")
    assert json.loads(status)["feasible"] == 0
    assert json.loads(status)["best"] == []


def test_a_pareto_front_of_feasible_trials(tmp_path: Path) -> None:
    objective = """
        from aimlhpo import BaseObjective

        class Objective(BaseObjective):
            def train(self, trial, conf):
                x = conf["model"]["x"]
                return {"a": x, "b": 1 - x, "size": 10 * x}
    """
    project = Project(
        tmp_path, objective, metric=["a", "b"], direction=["minimize", "minimize"], pruner=None,
        constraints=["size <= 5"], n_trials=10, seed=1, sampler={"type": "NSGAIISampler", "population_size": 4},
    )  # fmt: skip
    project.run()
    front = {trial.number for trial in project.study().trials if trial.params["x"] <= 0.5}
    assert front
    assert {trial.number for trial in project.study().best_trials} == front
    files = {path.name for path in project.save_path.glob("best-*.yml")}
    assert files == {f"best-{number}.yml" for number in front}


@pytest.mark.parametrize(
    ("constraint", "cause"),
    [
        ("x_sen >= 0.5", "missing metric: x_sen"),
        ("1 / (x_seen - x_seen) >= 0.5", "bad value: constraint"),
    ],
)
def test_a_trial_whose_constraint_has_no_value_fails(tmp_path: Path, constraint: str, cause: str) -> None:
    project = Project(tmp_path, constraints=[constraint], n_trials=2, max_consecutive_failures=1)
    project.run(expect=4)
    assert project.records()[0]["cause"].startswith(cause)
    assert "COMPLETE" not in project.states()


def test_a_pruned_trial_has_no_constraints(tmp_path: Path) -> None:
    objective = """
        import optuna
        from aimlhpo import BaseObjective

        class Objective(BaseObjective):
            def train(self, trial, conf):
                if trial.number % 2:
                    raise optuna.TrialPruned
                return {"val_loss": conf["model"]["x"], "size": 1}
    """
    project = Project(tmp_path, objective, constraints=["size <= 2"], n_trials=4)
    project.run()
    assert [trial.constraints for trial in project.study().trials] == [{"size <= 2": -1.0}, {}] * 2
    assert [row["feasible"] for row in rows(project)] == ["True", ""] * 2


def test_other_constraints_make_another_study(tmp_path: Path) -> None:
    begin_study(Project(tmp_path, constraints=["x_seen >= 0.1"], n_trials=2).config)
    changed: dict[str, Any] = {"constraints": ["x_seen >= 0.2"], "n_trials": 4, "reload": 1}
    done = Project(tmp_path, **changed).run(expect=2)
    assert "optuna: constraints: is x_seen >= 0.2, but the study was made with x_seen >= 0.1" in done.stderr
