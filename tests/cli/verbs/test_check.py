"""`aimlhpo check`: what would run, or every problem."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from aimlhpo.cli.main import main
from tests.cli.studies import run_verb
from tests.project import Project


def test_check_says_what_would_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_verb(Project(tmp_path), "check") == 0
    shown = capsys.readouterr().out
    assert shown.startswith("ok")
    for word in ("SQLite", "RandomSampler", "NopPruner", "1: x", "minimize val_loss", "on this machine"):
        assert word in shown


def test_check_as_json_lists_the_problems(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    project = Project(tmp_path, n_trials=0, direction="minimise")
    assert run_verb(project, "check", "--json") == 2
    answer = json.loads(capsys.readouterr().out)
    assert answer["ok"] is False
    by_place = {problem["where"]: problem for problem in answer["problems"]}
    assert by_place.keys() >= {"optuna: n_trials", "optuna: direction"}
    assert by_place["optuna: direction"]["suggestion"] == "minimize"


def test_check_as_json_of_a_good_study(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_verb(Project(tmp_path), "check", "--json") == 0
    answer = json.loads(capsys.readouterr().out)
    assert (answer["ok"], answer["problems"]) == (True, [])
    assert answer["summary"]["sampler"] == "RandomSampler"


def test_check_loads_no_framework_and_no_pandas(tmp_path: Path) -> None:
    project = Project(tmp_path)
    script = (
        "import sys; from aimlhpo.cli.main import main\n"
        f"assert main(['check', {str(project.hyperparameters)!r}, {str(project.model)!r}]) == 0\n"
        "print('LOADED', [n for n in ('torch', 'tensorflow', 'pandas', 'sqlalchemy', 'rich') if n in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "LOADED []"


def test_the_schema_is_json_and_knows_the_keys(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["schema"]) == 0
    schema = json.loads(capsys.readouterr().out)
    assert {"log", "slurm", "optuna"} <= schema["properties"].keys()
