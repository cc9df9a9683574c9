"""Studies whose directory was moved, copied or closed: the commands follow it, or say what is in the way."""

from __future__ import annotations

import os
import shutil
import sqlite3
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from aimlhpo.cli.main import main
from aimlhpo.config.load import load_target
from tests.cli.studies import fill_study, run_verb
from tests.project import Project
from tests.servers import PostgreSQL

NOBODY = 65534


@pytest.mark.parametrize("kind", ["sqlite", "journal"])
def test_a_moved_study_is_looked_at_and_goes_on(tmp_path: Path, kind: str, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "old").mkdir()
    project = Project(tmp_path / "old", n_trials=3, **({"storage": kind} if kind == "journal" else {}))
    fill_study(project, 2)
    shutil.move(tmp_path / "old", tmp_path / "new")
    moved = tmp_path / "new" / "run"
    assert main(["status", str(moved)]) == 0
    assert "2 of 3 done" in capsys.readouterr().out
    assert main(["results", str(moved)]) == 0
    assert main(["watch", str(moved)]) == 4  # nobody works on it
    assert (moved / "results.csv").exists()
    # Its objective was moved along, and jobs that are submitted from there find it.
    assert load_target(moved).optuna.objective == str(tmp_path / "new" / "objective.py")
    project = Project(tmp_path / "new", n_trials=3, reload=1, **({"storage": kind} if kind == "journal" else {}))
    assert run_verb(project, "optimize", "--local", "1") == 0
    assert project.states() == {"COMPLETE": 3}
    assert not (tmp_path / "old").exists()


def test_a_copy_is_a_study_of_its_own(tmp_path: Path) -> None:
    project = Project(tmp_path, n_trials=3)
    fill_study(project, 2)
    copy = tmp_path / "copy"
    shutil.copytree(project.save_path, copy)
    before = {path: path.read_bytes() for path in project.save_path.rglob("*") if path.is_file()}
    assert main(["results", str(copy)]) == 0
    assert run_verb(project, "optimize", "--local", "1", "-r", "1", "-s", str(copy)) == 0
    assert {path: path.read_bytes() for path in project.save_path.rglob("*") if path.is_file()} == before
    assert len((copy / "results.csv").read_text().splitlines()) == 4


@pytest.mark.parametrize("way", [shutil.move, shutil.copytree])
def test_trials_of_another_study_are_taken_over_once_wherever_both_lie(tmp_path: Path, way: Any) -> None:
    def projects(folder: Path) -> tuple[Project, Project]:
        for name in ("other", "study"):
            (folder / name).mkdir(parents=True, exist_ok=True)
        other = Project(folder / "other", name="other")
        return other, Project(folder / "study", n_trials=1, reload=1, warm_start_from=str(other.save_path))

    other, study = projects(tmp_path / "old")
    fill_study(other, 2)
    assert run_verb(study, "optimize", "-c", "-r", "0") == 0
    way(tmp_path / "old", tmp_path / "new")
    _, study = projects(tmp_path / "new")
    assert run_verb(study, "optimize", "--local", "1") == 0
    assert study.states() == {"COMPLETE": 3}


def test_a_copy_of_a_study_in_a_shared_storage_is_refused(
    tmp_path: Path, postgresql_server: PostgreSQL, capsys: pytest.CaptureFixture[str]
) -> None:
    project = Project(tmp_path, n_trials=3, storage=postgresql_server.url())
    fill_study(project, 1)
    copy = tmp_path / "copy"
    shutil.copytree(project.save_path, copy)
    for command in (["status", str(copy)], ["results", str(copy)]):
        assert main(command) == 2
        assert f"is run from {project.save_path}" in capsys.readouterr().err
    assert run_verb(project, "optimize", "-r", "1", "-s", str(copy)) == 2
    assert f"save_path: {project.save_path}" in capsys.readouterr().err
    assert not (copy / "results.csv").exists()
    shutil.rmtree(project.save_path)  # the first one is gone: the other was moved, for all that anyone can see
    assert main(["status", str(copy)]) == 0
    assert run_verb(project, "optimize", "--local", "1", "-r", "1", "-s", str(copy)) == 0


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """A directory that others may look into, unlike those of pytest."""
    folder = Path(tempfile.mkdtemp(prefix="aimlhpo-test-"))
    folder.chmod(0o755)
    yield folder
    shutil.rmtree(folder)


def run_as_another_user(*arguments: str) -> subprocess.CompletedProcess[str]:
    """The command without the rights of root."""
    another = ["setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups"] if os.geteuid() == 0 else []
    command = [*another, sys.executable, "-m", "aimlhpo", *arguments]
    return subprocess.run(command, capture_output=True, text=True, cwd="/", stdin=subprocess.DEVNULL, check=False)


def test_a_study_that_another_user_may_not_read_is_told(open_folder: Path) -> None:
    project = Project(open_folder)
    fill_study(project, 1)
    state, database = project.save_path / ".aimlhpo", project.save_path / "s.db"
    state.chmod(0)
    said = run_as_another_user("status", str(project.save_path))
    assert (said.returncode, said.stdout) == (2, "")
    assert f"permission denied; {state} belongs to" in said.stderr
    state.chmod(0o755)
    for path in state.rglob("*"):
        path.chmod(0o755 if path.is_dir() else 0o644)
    database.chmod(0)
    said = run_as_another_user("status", str(project.save_path))
    assert (said.returncode, said.stdout) == (2, "")
    assert f"{database}: permission denied; it belongs to" in said.stderr
    database.chmod(0o666)
    project.save_path.chmod(0o555)
    said = run_as_another_user("status", str(project.save_path))
    assert said.returncode == 0, said.stderr
    assert "1 of 8 done" in said.stdout
    said = run_as_another_user("results", str(project.save_path))
    assert said.returncode == 2
    assert "permission denied; " in said.stderr
    assert "Traceback" not in said.stderr


def test_what_a_terminal_cannot_show_is_no_error(tmp_path: Path) -> None:
    project = Project(tmp_path, name="études")
    fill_study(project, 1)
    command = [sys.executable, "-m", "aimlhpo", "status", str(project.save_path)]
    ascii_only = {**os.environ, "PYTHONIOENCODING": "ascii", "LC_ALL": "C"}
    said = subprocess.run(command, capture_output=True, env=ascii_only, check=False)
    assert (said.returncode, said.stderr) == (0, b"")
    assert rb"\xe9tudes" in said.stdout


def test_a_name_that_is_too_long_for_a_database_is_told(
    tmp_path: Path, postgresql_server: PostgreSQL, capsys: pytest.CaptureFixture[str]
) -> None:
    long = {"model:x": {"type": "float", "settings": {"name": "x" * 700, "low": 0.0, "high": 1.0}}}
    assert run_verb(Project(tmp_path, parameters=long, storage=postgresql_server.url()), "optimize") == 2
    told = capsys.readouterr().err
    assert "optuna: parameters: model:x: the name" in told
    assert "has 700 characters" in told
    assert "at most 512" in told
    assert run_verb(Project(tmp_path, parameters=long), "check") == 0  # a file takes it


def test_tables_of_an_older_optuna_are_told_with_the_way(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    project = Project(tmp_path)
    fill_study(project, 1)
    with sqlite3.connect(project.save_path / "s.db") as database:
        database.execute("UPDATE alembic_version SET version_num = 'v2.6.0.a'")
    assert main(["status", str(project.save_path)]) == 2
    assert f'optuna storage upgrade --storage "sqlite:///{project.save_path}/s.db"' in capsys.readouterr().err
