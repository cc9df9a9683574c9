"""`aimlhpo track`: what can be wrong with it."""

from __future__ import annotations

from pathlib import Path

import pytest

from aimlhpo.cli.main import main
from aimlhpo.ledger.leases import Election
from aimlhpo.search.warm_start import begin_study
from tests.project import Project


@pytest.fixture
def save_path(tmp_path: Path) -> Path:
    project = Project(tmp_path)
    begin_study(project.config)
    project.config.write_snapshot()
    return project.save_path


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        ([], 2, ["asks for no tracking tool", "--mlflow [URI] or --tensorboard [DIR]"]),
        (["--mlflow", "localhost:5000"], 2, ["has no scheme", "did you mean: http://localhost:5000"]),
        (["--mlflow", "http://me:secret@host"], 2, ["holds credentials", "MLFLOW_TRACKING_PASSWORD"]),
        (["--mlfow", "x"], 2, ["--mlfow", "aimlhpo track --help"]),
    ],
)
def test_mistakes(
    arguments: list[str], code: int, words: list[str], save_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["track", str(save_path), *arguments]) == code
    told = capsys.readouterr().err
    assert all(word in told for word in words), told
    assert "secret" not in told
    assert len(told.splitlines()) < 12


def test_an_agent_that_tracks_is_not_disturbed(save_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with Election(save_path / ".aimlhpo" / "tracker.lock") as agent:
        assert agent.won()
        assert main(["track", str(save_path), "--tensorboard"]) == 2
    assert "an agent of study s runs" in capsys.readouterr().err


def test_no_study(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["track", str(tmp_path)]) == 2
    assert "holds no study" in capsys.readouterr().err
