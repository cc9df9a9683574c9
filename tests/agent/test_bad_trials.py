"""A bad trial costs one trial: it fails with its cause, and the slot lives."""

from __future__ import annotations

from pathlib import Path

import pytest

from aimlhpo.agent.agent import Agent
from aimlhpo.cli.live_view import LinesView
from aimlhpo.errors import ExitCode, StudyFailed
from aimlhpo.worker.devices import Slot
from tests.project import Project

FIRST_IS_BAD = """
    import os, signal, sys, time
    import numpy
    from aimlhpo import BaseObjective

    class Objective(BaseObjective):
        def train(self, trial, conf):
            if trial.number == 0:
                {bad}
            return {{"val_loss": 1.0}}
"""


BAD = [
    ("raise ValueError('no such layer')", "exception: ValueError: no such layer"),
    ("sys.exit(0)", "exception: SystemExit: 0"),
    ("os._exit(7)", "exit code 7"),
    ("os.kill(os.getpid(), signal.SIGSEGV)", "killed by signal 11"),
    ("os.kill(os.getpid(), signal.SIGKILL)", "killed by signal 9"),
    ("raise MemoryError", "out of memory"),
    ("return None", "bad value"),
    ("return {'val_loss': float('nan')}", "nan"),
    ("return {'val_loss': float('inf')}", "bad value"),
    ("return {'val_loss': '0.5'}", "bad value"),
    ("return {'val_loss': True}", "bad value"),
    ("return {'val_loss': 1j}", "bad value"),
    ("return {'val_loss': [1.0]}", "bad value"),
    ("return {'loss': 1.0}", "missing metric"),
]


@pytest.mark.oom
def test_bad_trials_fail_with_their_causes(tmp_path: Path) -> None:
    each = "\n                ".join(f"if trial.number == {number}: {bad}" for number, (bad, _) in enumerate(BAD))
    objective = FIRST_IS_BAD.replace("trial.number == 0", "True").format(bad=each)
    project = Project(tmp_path, objective, n_trials=2, max_consecutive_failures=len(BAD) + 1)
    project.run()
    assert project.states() == {"COMPLETE": 2, "FAIL": len(BAD)}
    for (bad, cause), record in zip(BAD, project.records(), strict=False):
        assert record["cause"].startswith(cause), (bad, record)
        assert (project.save_path / record["log"]).exists()


def test_numpy_scalars_are_numbers(tmp_path: Path) -> None:
    project = Project(tmp_path, FIRST_IS_BAD.format(bad="return {'val_loss': numpy.float32(0.5)}"), n_trials=2)
    project.run()
    assert project.study().trials[0].value == 0.5


def test_hung_trial_is_stopped_at_its_limit(tmp_path: Path) -> None:
    project = Project(tmp_path, FIRST_IS_BAD.format(bad="time.sleep(600)"), n_trials=2, trial_timeout=1)
    project.run()
    assert project.states()["COMPLETE"] == 2
    hung, *others = project.records()
    assert hung["cause"] == "timeout"
    assert 1 <= hung["seconds"] < 600
    # On a machine that stops for a while a trial that does nothing may be stopped, too.
    assert {record["cause"] for record in others} <= {None, "timeout"}


def test_failures_in_a_row_stop_the_study(tmp_path: Path) -> None:
    project = Project(
        tmp_path, FIRST_IS_BAD.format(bad="pass").replace("== 0", ">= 0").replace("pass", "raise ValueError('x')"),
        max_consecutive_failures=4,
    )  # fmt: skip
    failed = project.run(expect=ExitCode.STUDY_FAILED)
    assert "max_consecutive_failures" in failed.stderr
    failures = project.states()["FAIL"]
    assert failures >= 4
    # A job of the same submission that starts later begins none.
    with pytest.raises(StudyFailed, match="in a row have failed"):
        Agent(project.config, [Slot(0), Slot(1)], LinesView()).run()
    assert project.states()["FAIL"] == failures
    assert "RUNNING" not in project.states()


def test_objective_that_cannot_be_made_in_the_worker_is_reported_once(tmp_path: Path) -> None:
    broken = "\n        def __init__(self, **given):\n            1 / 0\n"
    project = Project(tmp_path, FIRST_IS_BAD.format(bad="pass") + broken)
    failed = project.run("--local", "2", expect=ExitCode.CONFIG)
    assert "ZeroDivisionError" in failed.stderr
    assert "RUNNING" not in project.states()


def test_next_trial_finds_its_output_open(tmp_path: Path) -> None:
    bad = "sys.stdout.close(); os.close(2)"
    objective = FIRST_IS_BAD.format(bad=bad).replace("return {", 'print("still here"); return {')
    project = Project(tmp_path, objective, n_trials=2)
    project.run()
    assert project.states() == {"COMPLETE": 2, "FAIL": 1}
    record = project.records()[1]
    assert "still here" in (project.save_path / record["log"]).read_bytes()[record["log_offset"] :].decode()
