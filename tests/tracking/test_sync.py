"""What reaches a tool, whatever the tool does. The tools here fail in every way; real ones do so in test_study.py."""

from __future__ import annotations

from pathlib import Path

import pytest
from optuna import Study

from aimlhpo.search.warm_start import begin_study
from aimlhpo.tracking import sync
from aimlhpo.tracking.run import Run, StudyState
from aimlhpo.tracking.sync import TrackingSync
from tests.project import Project


class Tool:
    """Takes runs, but for those that it refuses, and while it is not away."""

    name = "a tool"

    def __init__(self, refuses: int | None = None) -> None:
        self.has: dict[int, Run] = {}
        self.states: list[StudyState] = []
        self.away: Exception | None = None
        self._refuses = refuses

    def open(self) -> None:
        if self.away is not None:
            raise self.away

    def send(self, run: Run) -> None:
        self.open()
        if run.number == self._refuses:
            raise ValueError("never takes it")
        self.has[run.number] = run

    def conclude(self, state: StudyState) -> None:
        self.open()
        self.states.append(state)


@pytest.fixture(autouse=True)
def _without_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sync, "_FIRST_PAUSE", 0.0)
    monkeypatch.setattr(sync, "_LONGEST_PAUSE", 0.0)


@pytest.fixture
def project(tmp_path: Path) -> Project:
    return Project(tmp_path)


def with_trials(project: Project, trials: int) -> Study:
    study = begin_study(project.config)
    for number in range(trials):
        trial = study.ask()
        study.tell(trial, trial.suggest_float("x", 0.0, 1.0) + number)
    return study


def test_trials_arrive_as_they_change(project: Project) -> None:
    study, tool = with_trials(project, 2), Tool()
    study.enqueue_trial({"x": 0.5})
    following = TrackingSync(project.config, study, [tool], pytest.fail)
    following.sync()
    assert set(tool.has) == {0, 1}  # and not the one that has not begun
    trial = study.ask()
    trial.suggest_float("x", 0.0, 1.0)
    following.sync()
    assert tool.has[2].state == "RUNNING"
    trial.report(1.0, 0)
    following.sync()
    assert tool.has[2].reports == {0: 1.0}
    tool.has.clear()
    study.tell(trial, 1.0)
    assert following.finish("finished") == []
    assert set(tool.has) == {2}
    assert tool.states[-1] == StudyState(
        3, {"val_loss": min(study.trials[n].value or 0.0 for n in range(3))}, "finished"
    )


def test_an_outage_is_told_once_and_made_up_for(project: Project) -> None:
    lines: list[str] = []
    study, tool, other = with_trials(project, 2), Tool(), Tool()
    following = TrackingSync(project.config, study, [tool, other], lines.append)
    tool.away = ConnectionRefusedError(111, "Connection refused")
    for _ in range(3):
        following.sync()
    assert lines == ["a tool cannot be told of the trials now, trying again: Connection refused"]
    assert set(other.has) == {0, 1}
    assert following.finish("stopped") == ["a tool lacks 2 of 2 trials: Connection refused"]
    tool.away = None
    following.sync()
    assert set(tool.has) == {0, 1}
    assert lines[1:] == ["a tool is told of the trials again"]
    assert following.finish("stopped") == []


def test_a_trial_that_a_tool_never_takes_holds_up_no_other(project: Project) -> None:
    lines: list[str] = []
    study, tool = with_trials(project, 3), Tool(refuses=1)
    following = TrackingSync(project.config, study, [tool], lines.append)
    following.sync()
    following.sync()
    assert set(tool.has) == {0, 2}
    assert lines == ["a tool does not take trial 1: ValueError: never takes it"]
    assert following.finish("stopped") == ["a tool lacks 1 of 3 trials: ValueError: never takes it"]


def test_the_study_is_not_called_finished_while_others_run_trials(project: Project) -> None:
    study, tool = with_trials(project, 1), Tool()
    study.ask().suggest_float("x", 0.0, 1.0)
    TrackingSync(project.config, study, [tool], pytest.fail).finish("finished")
    assert tool.states[-1].ended is None
