"""What the command line takes, and how mistakes on it are told."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from aimlhpo.cli.main import main
from tests.cli.studies import run_verb
from tests.project import Project


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (("-t", "abc"), "n_trials"),
        (("-t", "0"), "n_trials"),
        (("-t", "-5"), "n_trials"),
        (("-r", "perhaps"), "reload"),
        (("-d", "sideways"), "direction"),
        (("optuna:no_such_key=1",), "no_such_key"),
        (("nonsense",), "nonsense"),
    ],
)
def test_wrong_words_on_the_command_line_are_told(
    arguments: tuple[str, ...], named: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_verb(Project(tmp_path), "check", *arguments) == 2
    told = capsys.readouterr().err
    assert named in told
    assert "Traceback" not in told


def test_options_and_overrides_may_stand_in_any_order(tmp_path: Path) -> None:
    project = Project(tmp_path)
    assert run_verb(project, "optimize", "-t", "5", "model:units=9", "-c", "optuna:pruner:type=NopPruner") == 0
    snapshot = project.save_path / ".aimlhpo" / "config"
    assert yaml.safe_load((snapshot / "model.yml").read_text())["model"]["units"] == 9
    assert yaml.safe_load((snapshot / "hyperparameters.yml").read_text())["optuna"]["n_trials"] == 5


def test_local_may_stand_in_front_of_the_files(tmp_path: Path) -> None:
    project = Project(tmp_path)
    assert main(["optimize", "--local", str(project.hyperparameters), str(project.model), "-c"]) == 0


@pytest.mark.parametrize("verb", ["results", "status"])
def test_where_there_is_no_study_it_is_said(verb: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    project = Project(tmp_path)
    for place in (tmp_path, project.hyperparameters):
        assert main([verb, str(place)]) == 2
        assert "holds no study" in capsys.readouterr().err
    assert main([verb, str(tmp_path / "nowhere")]) == 2
    assert "nowhere" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        (["watch", "--every", "soon"], "--every: 'soon'"),
        (["watch", "--every", "0"], "more than 0"),
        (["submit", "--jobs", "x"], "--jobs: 'x'"),
        (["submit", "--jobs", "0"], "whole number from 1"),
    ],
)
def test_wrong_numbers(tmp_path: Path, argv: list[str], words: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*argv, str(tmp_path)]) == 2
    assert words in capsys.readouterr().err
