"""`aimlhpo results`."""

from __future__ import annotations

from pathlib import Path

import pytest

from aimlhpo.cli.main import main
from tests.cli.studies import fill_study
from tests.project import Project


@pytest.mark.parametrize("by_file", [True, False])
def test_results_are_rebuilt_from_the_storage(
    by_file: bool, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    project = Project(tmp_path)
    fill_study(project, 3)
    assert main(["results", str(project.hyperparameters if by_file else project.save_path)]) == 0
    assert len((project.save_path / "results.csv").read_text().splitlines()) == 4
    assert "3 finished trials" in capsys.readouterr().out
