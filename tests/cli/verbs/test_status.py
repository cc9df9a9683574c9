"""`aimlhpo status`: trials, agents and failures."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path
from typing import Any

import pytest

from aimlhpo.cli.main import main
from tests.cli.studies import FAILING, SLOW, fill_study
from tests.project import Project
from tests.waiting import wait_until


def test_status_tells_trials_best_and_that_nobody_works(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    project = Project(tmp_path)
    study = fill_study(project, 3)
    assert main(["status", str(project.save_path)]) == 0
    shown = capsys.readouterr().out
    assert "3 of 8 done: 3 complete" in shown
    assert f"(trial {study.best_trial.number})" in shown
    assert "5 trials are left" in shown


def status_of(project: Project, capsys: pytest.CaptureFixture[str]) -> dict[str, Any]:
    assert main(["status", str(project.save_path), "--json"]) == 0
    answer: dict[str, Any] = json.loads(capsys.readouterr().out)
    return answer


def test_status_shows_agents_and_their_trials_and_reaps_when_they_die(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    project = Project(tmp_path, objective=SLOW, n_trials=2)
    process = project.start("--local", "2")
    wait_until((project.save_path / ".aimlhpo" / "config" / "model.yml").exists, "the study")
    wait_until(lambda: project.states() == {"RUNNING": 2}, "two trials")
    wait_until(lambda: all(trial.intermediate_values for trial in project.study().trials), "reports")
    (agent,) = status_of(project, capsys)["agents"]
    assert sorted(trial["number"] for trial in agent["trials"]) == [0, 1]
    assert sorted(trial["slot"] for trial in agent["trials"]) == [0, 1]
    assert {tuple(trial["last_report"]) for trial in agent["trials"]} == {(3, 1.5)}
    os.kill(process.pid, signal.SIGKILL)
    process.communicate(timeout=120)
    after = status_of(project, capsys)
    assert after["agents"] == []
    assert sorted(after["reaped"]) == [0, 1]
    assert [(trial["number"], trial["attempts"]) for trial in after["interrupted"]] == [(0, 1), (1, 1)]
    assert main(["status", str(project.save_path), "--failed"]) == 0
    assert "trial 1: interrupted (" in capsys.readouterr().out
    assert project.states() == {"WAITING": 2}


def test_status_lists_failed_trials_with_cause_and_log(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    project = Project(tmp_path, objective=FAILING, n_trials=3)
    project.run("--local")
    assert main(["status", str(project.save_path), "--failed"]) == 0
    shown = capsys.readouterr().out
    assert "trial 1: exception: ValueError: no luck, trial 1" in shown
    logs = [line.split(" from byte ") for line in shown.splitlines() if "/logs/" in line]
    assert len(logs) >= 1
    for path, offset in logs:
        assert "no luck" in Path(path.strip()).read_bytes()[int(offset) :].decode()


def test_status_without_failures_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    project = Project(tmp_path)
    fill_study(project, 1)
    assert main(["status", str(project.save_path), "--failed"]) == 0
    assert "no trial has failed" in capsys.readouterr().out


def test_status_changes_no_file_of_a_quiet_study(tmp_path: Path) -> None:
    project = Project(tmp_path)
    fill_study(project, 2)
    before = {path: path.read_bytes() for path in project.save_path.rglob("*") if path.is_file()}
    assert main(["status", str(project.save_path)]) == 0
    after = {path: path.read_bytes() for path in project.save_path.rglob("*") if path.is_file()}
    assert {path: text for path, text in after.items() if text or path in before} == before
