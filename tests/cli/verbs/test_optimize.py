"""`aimlhpo optimize` on real studies: what it prints, writes and returns."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest
import yaml

from aimlhpo.cli.main import main
from aimlhpo.errors import ExitCode
from tests.cli.studies import SLOW, fill_study, run_verb
from tests.project import Project
from tests.waiting import wait_until


def test_optimize_runs_the_study_and_says_what_came_out(tmp_path: Path) -> None:
    project = Project(tmp_path, n_trials=4)
    done = project.run("--local", "2")
    assert "4/4 trials done" in done.stdout
    assert "val_loss" in next(line for line in done.stdout.splitlines() if line.startswith("best "))
    assert str(project.save_path / "results.csv") in done.stdout
    best = yaml.safe_load((project.save_path / "best.yml").read_text())
    assert best["model"]["x"] == project.study().best_params["x"]
    assert best["model"]["units"] == 4
    assert "Warning" not in done.stderr
    assert len((project.save_path / "results.csv").read_text().splitlines()) == 5


def test_a_finished_study_runs_nothing_and_the_exit_code_says_so(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    fill_study(Project(tmp_path, n_trials=2), 2)
    project = Project(tmp_path, n_trials=2, reload=1)
    assert run_verb(project, "optimize") == 3
    assert "nothing to do" in capsys.readouterr().out
    assert project.states() == {"COMPLETE": 2}


def test_a_larger_budget_goes_on(tmp_path: Path) -> None:
    fill_study(Project(tmp_path), 2)
    project = Project(tmp_path)
    project.run("-r", "1", "-t", "4", "--local")
    assert project.states() == {"COMPLETE": 4}


def test_a_changed_objective_is_told_when_the_study_goes_on(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    project = Project(tmp_path, n_trials=1)
    assert "note:" not in project.run().stderr
    assert run_verb(project, "optimize", "-r", "1", "-t", "2", "-c") == 0
    assert "note:" not in capsys.readouterr().err
    (tmp_path / "objective.py").write_text((tmp_path / "objective.py").read_text() + "\n# another text\n")
    assert run_verb(project, "optimize", "-r", "1", "-t", "2", "-c") == 0
    assert "objective.py has changed" in capsys.readouterr().err


def test_optimize_with_create_only_makes_the_study(tmp_path: Path) -> None:
    project = Project(tmp_path)
    assert run_verb(project, "optimize", "-c") == 0
    assert project.states() == {}


def test_optimize_refuses_before_it_makes_anything(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    project = Project(tmp_path, objective="import nothing_of_this_name")
    assert run_verb(project, "optimize") == 2
    assert capsys.readouterr().err.rstrip().endswith("No module named 'nothing_of_this_name'")
    assert not project.save_path.exists()


def test_a_dry_run_starts_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    project = Project(tmp_path)
    assert run_verb(project, "optimize", "--dry-run") == 0
    assert "n_trials" in capsys.readouterr().out
    assert not project.save_path.exists()


def test_a_dry_run_shows_the_batch_script(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    project = Project(tmp_path, slurm={"jobs": 3, "batch": {"t": "01:00:00"}})
    assert run_verb(project, "optimize", "--dry-run") == 0
    assert "#SBATCH --time" in capsys.readouterr().out


def test_ctrl_c_ends_with_its_exit_code_and_the_study_can_go_on(tmp_path: Path) -> None:
    project = Project(tmp_path, objective=SLOW, n_trials=2)
    process = project.start("--local", "2")
    wait_until((project.save_path / ".aimlhpo" / "config" / "model.yml").exists, "the study")
    wait_until(lambda: project.states() == {"RUNNING": 2}, "two trials")
    process.send_signal(signal.SIGINT)
    output, _ = process.communicate(timeout=120)
    assert process.returncode == 130
    assert "reload" in output
    assert "Traceback" not in output
    assert project.states() == {"WAITING": 2}


def show(project: Project, *arguments: str) -> int:
    return main(["optimize", str(project.hyperparameters), str(project.model), "--show", *arguments])


def test_every_option_with_its_default(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    project = Project(tmp_path, sampler={"type": "TPESampler", "multivariate": True})
    assert show(project, "sampler", "sampler.n_startup_trials=30") == ExitCode.DONE
    shown = capsys.readouterr().out
    assert "TPESampler" in shown
    lines = {line.split()[0]: " ".join(line.split()[1:]) for line in shown.splitlines() if line.strip()}
    assert lines["n_startup_trials"] == "30 (default 10)"
    assert lines["multivariate"].startswith("true (default ")
    assert lines["n_ei_candidates"] == "default 24"
    assert not project.save_path.exists()


def test_the_default_pruner(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert show(Project(tmp_path, pruner=None), "pruner") == ExitCode.DONE
    shown = capsys.readouterr().out
    assert "MedianPruner" in shown
    assert "n_warmup_steps" in shown


def test_an_option_that_is_not_there(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert show(Project(tmp_path), "sampler", "sampler.n_startup=3") == ExitCode.CONFIG
    assert "RandomSampler takes no such argument" in capsys.readouterr().err
