"""A password works from the environment or ~/.pgpass, and appears nowhere, whatever goes wrong."""

from __future__ import annotations

import os
import stat
import subprocess
from pathlib import Path

import pytest

from aimlhpo.errors import ExitCode
from tests.faults import evidence
from tests.project import Project
from tests.servers import PostgreSQL
from tests.waiting import wait_until

pytestmark = pytest.mark.faults


def command_lines() -> bytes:
    """What `ps` shows of every process."""
    found = b""
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            found += path.read_bytes()
        except OSError:
            continue
    return found


def files_with(secret: str, folder: Path) -> list[Path]:
    files = [path for path in folder.rglob("*") if path.is_file()]
    assert files
    return [path for path in files if secret.encode() in path.read_bytes()]


def open_to_others(folder: Path) -> list[Path]:
    return [path for path in [folder, *folder.rglob("*")] if stat.S_IMODE(path.lstat().st_mode) & 0o077]


def test_a_password_in_the_environment_appears_nowhere(tmp_path: Path, own_postgresql: PostgreSQL) -> None:
    secret = own_postgresql.password
    env = {**os.environ, own_postgresql.password_variable: secret}
    project = Project(tmp_path, evidence.objective(0.6), storage=own_postgresql.secret_url(), n_trials=8)
    with subprocess.Popen(
        project.command("--local", "2"), cwd=tmp_path, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    ) as command:
        begun = tmp_path / "evidence"
        wait_until(lambda: begun.exists() and len(list(begun.iterdir())) >= 2, "two running trials", 120)
        seen = command_lines()
        own_postgresql.stop()  # what is said of an outage names no password either
        wait_until(lambda: len(evidence.read(begun)) >= 4, "the ends of two trials", 60)
        own_postgresql.start()
        output, _ = command.communicate(timeout=120)
    assert command.returncode == 0, output
    status = subprocess.run(
        [*project.command(verb="status")[:-2], str(project.save_path), "--json"], env=env, capture_output=True
    )
    assert status.returncode == 0, status.stderr
    assert secret.encode() not in seen + output + status.stdout + status.stderr
    assert files_with(secret, tmp_path) == []
    assert open_to_others(project.save_path / ".aimlhpo") == []


def test_a_wrong_password_is_not_repeated(tmp_path: Path, postgresql_server: PostgreSQL) -> None:
    env = {**os.environ, postgresql_server.password_variable: "the-wrong-one"}
    project = Project(tmp_path, storage=postgresql_server.secret_url())
    failed = project.run(expect=ExitCode.CONFIG, env=env)
    assert "password" in failed.stderr
    assert "the-wrong-one" not in failed.stdout + failed.stderr
    assert files_with("the-wrong-one", tmp_path) == []


def test_a_password_file_works(tmp_path: Path, postgresql_server: PostgreSQL) -> None:
    url = postgresql_server.secret_url().replace(f":${{{postgresql_server.password_variable}}}", "")
    (tmp_path / ".pgpass").write_text(f"127.0.0.1:{postgresql_server.port}:*:*:{postgresql_server.password}\n")
    (tmp_path / ".pgpass").chmod(0o600)
    folder = tmp_path / "study"
    folder.mkdir()
    project = Project(folder, storage=url, n_trials=2)
    project.run(env={**os.environ, "HOME": str(tmp_path), "PGPASSFILE": str(tmp_path / ".pgpass")})
    assert files_with(postgresql_server.password, folder) == []


def test_a_password_written_out_is_refused(tmp_path: Path) -> None:
    project = Project(tmp_path, storage="postgresql://ada:open-secret@127.0.0.1/s")
    refused = project.run(expect=ExitCode.CONFIG)
    assert "open-secret" not in refused.stdout + refused.stderr
    assert "${PASSWORD}" in refused.stderr


@pytest.mark.parametrize("kind", ["sqlite", "journal"])
def test_state_is_readable_by_the_user_alone(tmp_path: Path, kind: str) -> None:
    storage = {"sqlite": f"sqlite:///{tmp_path}/run/s.db", "journal": "journal"}[kind]
    project = Project(tmp_path, storage=storage, n_trials=2)
    project.run()
    assert open_to_others(project.save_path / ".aimlhpo") == []
    assert [path for path in project.save_path.glob("s.*") if stat.S_IMODE(path.stat().st_mode) & 0o077] == []
