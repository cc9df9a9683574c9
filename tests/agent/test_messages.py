"""Nothing that a worker sends, and nothing that its death leaves open, ends the agent."""

from __future__ import annotations

import errno
import subprocess
from pathlib import Path
from typing import Any

import pytest

from aimlhpo.agent.agent import Agent
from aimlhpo.cli.live_view import LinesView
from aimlhpo.errors import StudyFailed
from aimlhpo.search.warm_start import begin_study
from aimlhpo.storage.attributes import record_of
from aimlhpo.worker.devices import Slot
from tests.project import Project

OF_ITS_OWN = """
    from enum import Enum
    from aimlhpo import BaseObjective

    class Loss(str, Enum):
        HINGE = "hinge"
        SQUARED = "squared"

    class Objective(BaseObjective):
        def train(self, trial, conf):
            loss = trial.suggest_categorical("loss", list(Loss))
            assert isinstance(loss, Loss)
            trial.set_user_attr("last", [loss])
            conf["model"]["loss"] = loss
            return {"val_loss": 1.0, "best": loss}
"""


def test_values_of_the_objectives_own_classes_are_stored_as_plain_values(tmp_path: Path) -> None:
    project = Project(tmp_path, OF_ITS_OWN, n_trials=3)
    project.run()
    for trial in project.study().trials:
        assert trial.params["loss"] in ("hinge", "squared")
        assert trial.user_attrs["last"] == [trial.params["loss"]]
        assert record_of(trial)["metrics"]["best"] == trial.params["loss"]


UNREADABLE = """
    from aimlhpo import BaseObjective

    class Low(float):
        pass

    class Objective(BaseObjective):
        def train(self, trial, conf):
            low = Low(0.0) if trial.number == 1 else 0.0
            return {"val_loss": trial.suggest_float("other", low, 1.0)}
"""


def test_message_that_cannot_be_read_costs_only_its_trial(tmp_path: Path) -> None:
    project = Project(tmp_path, UNREADABLE, n_trials=3)
    project.run("--local", "2")
    assert project.states() == {"COMPLETE": 3, "FAIL": 1}
    assert project.records()[1]["cause"].startswith("sent what cannot be read: ")


HELD_OPEN = """
    import multiprocessing, os, signal, sys
    from aimlhpo import BaseObjective

    class Objective(BaseObjective):
        def train(self, trial, conf):
            if trial.number == 0:
                shared = multiprocessing.get_context("fork").Manager()
                os.kill(os.getpid(), signal.SIGKILL)
            return {"val_loss": 1.0}
"""


@pytest.mark.oom
def test_dead_worker_is_replaced_although_its_helper_keeps_the_pipe_open(tmp_path: Path) -> None:
    project = Project(tmp_path, HELD_OPEN, n_trials=3)
    project.run()
    assert project.states() == {"COMPLETE": 3, "FAIL": 1}
    assert project.records()[0]["cause"] == "killed by signal 9"


WITHOUT_LOGS = """
    import os, shutil, signal
    from pathlib import Path
    from aimlhpo import BaseObjective

    class Objective(BaseObjective):
        def train(self, trial, conf):
            if trial.number == 1:
                shutil.rmtree(Path(__file__).parent / "run" / "logs")
            if trial.number == 2:
                os.kill(os.getpid(), signal.SIGKILL)
            return {"val_loss": 1.0}
"""


def test_study_goes_on_when_its_logs_are_deleted(tmp_path: Path) -> None:
    project = Project(tmp_path, WITHOUT_LOGS, n_trials=5)
    project.run()
    assert project.states() == {"COMPLETE": 5, "FAIL": 1}


@pytest.fixture
def refusals(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many more processes the system refuses, in its only element: root has no limit that could be reached."""
    left = [0]
    start = subprocess.Popen

    def refuse(command: list[str], **arguments: Any) -> Any:
        if left[0] == 0 or not any(word.startswith("aimlhpo.worker") for word in command):
            return start(command, **arguments)
        left[0] -= 1
        raise BlockingIOError(errno.EAGAIN, "Resource temporarily unavailable")

    monkeypatch.setattr(subprocess, "Popen", refuse)
    return left


def agent_of(project: Project) -> Agent:
    begin_study(project.config)
    return Agent(project.config, [Slot(0)], LinesView())


def test_worker_that_the_system_refuses_is_started_again(tmp_path: Path, refusals: list[int]) -> None:
    project = Project(tmp_path, n_trials=2)
    refusals[0] = 2
    agent_of(project).run()
    assert project.states() == {"COMPLETE": 2}


def test_study_fails_with_the_reason_where_the_system_goes_on_refusing(tmp_path: Path, refusals: list[int]) -> None:
    refusals[0] = 99
    with pytest.raises(StudyFailed, match="not started: Resource temporarily unavailable"):
        agent_of(Project(tmp_path, n_trials=2)).run()
