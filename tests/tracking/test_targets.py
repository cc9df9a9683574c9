"""What is told of the tracking tools before a trial runs."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from aimlhpo.check.check import check
from aimlhpo.check.settings import load_config
from aimlhpo.errors import Problem
from tests.project import Project


def problems(project: Project, *overrides: str) -> list[Problem]:
    return check(load_config(project.hyperparameters, project.model, overrides))


def test_what_is_installed_is_no_problem(tmp_path: Path) -> None:
    assert problems(Project(tmp_path), "log:mlflow=true", "log:tensorboard=true") == []


def test_a_server_that_is_down_keeps_no_study_from_running(tmp_path: Path) -> None:
    assert problems(Project(tmp_path), "log:mlflow=http://127.0.0.1:1") == []


def test_what_is_missing_is_told_with_the_way_to_get_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "mlflow").mkdir()  # a directory of that name is not the package
    monkeypatch.setattr("sys.path", [str(tmp_path)])
    monkeypatch.delitem(sys.modules, "mlflow", raising=False)  # another test may have loaded it
    found = {problem.where: str(problem) for problem in problems(Project(tmp_path), "log:mlflow=true")}
    assert "mlflow is not installed" in found["log: mlflow"]
    assert "pip install 'aimlhpo[mlflow]'" in found["log: mlflow"]
    assert "log: tensorboard" not in found


def test_a_password_in_a_database_url_is_refused(tmp_path: Path) -> None:
    (problem,) = problems(Project(tmp_path), "log:mlflow=postgresql://me:secret@host/db")
    assert problem.where == "log: mlflow: uri"
    assert "${PASSWORD}" in str(problem)
    assert "secret" not in str(problem)
