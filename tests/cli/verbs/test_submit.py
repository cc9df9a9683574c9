"""`aimlhpo submit` where no cluster is needed."""

from __future__ import annotations

from pathlib import Path

import pytest

from aimlhpo.cli.main import main
from tests.cli.studies import fill_study
from tests.project import Project


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The save_path of a study whose trials have all ended, on which nobody works."""
    project = Project(tmp_path_factory.mktemp("study"), n_trials=2)
    fill_study(project, 2)
    return project.save_path


def test_nothing_is_submitted_for_a_finished_study(finished: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["submit", str(finished)]) == 3
    assert "nothing to do" in capsys.readouterr().out


def test_without_a_slurm_section_nothing_can_be_submitted(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    fill_study(Project(tmp_path), 0)
    assert main(["submit", str(tmp_path / "run")]) == 2
    assert "slurm: this section is missing" in capsys.readouterr().err
