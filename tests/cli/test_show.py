"""`--show sampler`: every option with its default, and what was set."""

from __future__ import annotations

from pathlib import Path

import pytest

from aimlhpo.cli.main import main
from aimlhpo.errors import ExitCode
from tests.project import Project


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
