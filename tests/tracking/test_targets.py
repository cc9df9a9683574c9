"""What is told of the tracking tools before a trial runs."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest

from aimlhpo.check.check import check
from aimlhpo.check.settings import load_config
from aimlhpo.errors import Problem
from aimlhpo.search.warm_start import begin_study
from aimlhpo.tracking.run import Run, StudyEntry, StudyState, Target
from aimlhpo.tracking.tracker import TRACKERS, make_targets, tracking_problems
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


class Notebook(Target):
    """A tracker that somebody has added."""

    package = "json"
    name = "notebook"

    @classmethod
    def make(cls, section: str, study: StudyEntry, reported: str) -> Notebook:
        return cls()

    @classmethod
    def problems(cls, section: str) -> Iterator[Problem]:
        if section == "torn":
            yield Problem("log: notebook", "is torn", "a whole one")

    def load(self) -> None: ...

    def open(self) -> None: ...

    def send(self, run: Run) -> None: ...

    def conclude(self, state: StudyState) -> None: ...


@pytest.mark.parametrize(("section", "found"), [("whole", []), ("torn", ["log: notebook"])])
def test_a_new_tracker_is_a_class_and_a_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, section: str, found: list[str]
) -> None:
    monkeypatch.setitem(TRACKERS, "notebook", Notebook)
    project = Project(tmp_path)
    study, config = begin_study(project.config), project.config
    asking = replace(config, log=SimpleNamespace(mlflow=None, tensorboard=None, notebook=section))  # type: ignore[arg-type]
    assert [type(target) for target in make_targets(asking, study)] == [Notebook]
    assert [problem.where for problem in tracking_problems(asking)] == found
