"""A bad trial costs one trial: it fails with its cause, and the slot lives."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from aimlhpo.agent.agent import Agent
from aimlhpo.cli.live_view import LinesView
from aimlhpo.errors import ExitCode, StudyFailed
from aimlhpo.search.warm_start import begin_study
from aimlhpo.worker.devices import Slot
from tests.faults.evidence import ROOT
from tests.project import Project

OBJECTIVES = Path(__file__).parent / "objectives"

BAD = {
    "raise ValueError": "exception: ValueError: no such layer",
    "exit": "exception: SystemExit: 0",
    "exit at once": "exit code 7",
    "segfault": "killed by signal 11",
    "be killed": "killed by signal 9",
    "raise MemoryError": "out of memory",
    "return None": "bad value",
    "return NaN": "nan",
    "return infinity": "bad value",
    "return a text": "bad value",
    "return True": "bad value",
    "return a complex number": "bad value",
    "return a list": "bad value",
    "return another metric": "missing metric",
}


def project(folder: Path, model: dict[str, Any], **keys: Any) -> Project:
    """A study whose trials do what `model` says, in the words of objectives/deeds.py."""
    return Project(folder, OBJECTIVES / "deeds.py", model=model, **{"n_trials": 2, **keys})


@pytest.mark.oom
def test_bad_trials_fail_with_their_causes(tmp_path: Path) -> None:
    made = project(tmp_path, {"deeds": dict(enumerate(BAD))}, max_consecutive_failures=len(BAD) + 1)
    made.run()
    assert made.states() == {"COMPLETE": 2, "FAIL": len(BAD)}
    for (bad, cause), record in zip(BAD.items(), made.records(), strict=False):
        assert record["cause"].startswith(cause), (bad, record)
        assert (made.save_path / record["log"]).exists()


def test_numpy_scalars_are_numbers(tmp_path: Path) -> None:
    made = project(tmp_path, {"deeds": {0: "return a NumPy number"}})
    made.run()
    assert made.study().trials[0].value == 0.5


def test_hung_trial_is_stopped_at_its_limit(tmp_path: Path) -> None:
    made = project(tmp_path, {"deeds": {0: "hang"}}, trial_timeout=1)
    made.run()
    assert made.states()["COMPLETE"] == 2
    hung, *others = made.records()
    assert hung["cause"] == "timeout"
    assert 1 <= hung["seconds"] < 600
    # On a machine that stops for a while a trial that does nothing may be stopped, too.
    assert {record["cause"] for record in others} <= {None, "timeout"}


def test_failures_in_a_row_stop_the_study(tmp_path: Path) -> None:
    made = project(tmp_path, {"always": "raise ValueError"}, n_trials=8, max_consecutive_failures=4)
    failed = made.run("--local", "2", expect=ExitCode.STUDY_FAILED)
    assert "max_consecutive_failures" in failed.stderr
    failures = made.states()["FAIL"]
    assert 4 <= failures <= 4 + 2
    # A job of the same submission that starts later begins none.
    with pytest.raises(StudyFailed, match="in a row have failed"):
        Agent(made.config, [Slot(0), Slot(1)], LinesView()).run()
    assert made.states()["FAIL"] == failures
    assert "RUNNING" not in made.states()


@pytest.mark.parametrize(
    ("agents", "slots", "limit"), [(2, 4, 6), pytest.param(4, 8, 10, marks=pytest.mark.slow)], ids=str
)
def test_no_more_trials_fail_than_the_limit_and_one_for_each_slot(
    tmp_path: Path, agents: int, slots: int, limit: int
) -> None:
    made = project(tmp_path, {"always": "raise ValueError"}, n_trials=1000, max_consecutive_failures=limit)
    begin_study(made.config)
    made.config.write_snapshot()
    command = [sys.executable, "-m", "tests.faults.agent", str(made.save_path), str(slots)]
    running = [subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, text=True) for _ in range(agents)]
    for agent in running:
        told = agent.communicate(timeout=200)[1]
        assert f"trials in a row have failed (max_consecutive_failures is {limit}), so the study was stopped" in told
    states = made.states()
    assert limit <= states["FAIL"] <= limit + agents * slots
    assert set(states) <= {"FAIL", "WAITING"}  # what was claimed ahead is given back
    # The count begins anew with the next start.
    made.run("-r", "1", "--local", "1", f"optuna:max_consecutive_failures={limit - 1}", expect=ExitCode.STUDY_FAILED)
    assert made.states()["FAIL"] == states["FAIL"] + limit - 1


def test_objective_that_cannot_be_made_in_the_worker_is_reported_once(tmp_path: Path) -> None:
    made = project(tmp_path, {"cannot_be_made": True}, n_trials=8)
    failed = made.run("--local", "2", expect=ExitCode.CONFIG)
    assert "ZeroDivisionError" in failed.stderr
    assert "RUNNING" not in made.states()


def test_next_trial_finds_its_output_open(tmp_path: Path) -> None:
    made = project(tmp_path, {"deeds": {0: "close its output"}})
    made.run()
    assert made.states() == {"COMPLETE": 2, "FAIL": 1}
    record = made.records()[1]
    assert "still here" in (made.save_path / record["log"]).read_bytes()[record["log_offset"] :].decode()
