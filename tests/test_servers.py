from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path
from urllib.parse import quote

import psycopg
import pytest

from tests.conftest import STORAGE_KINDS
from tests.servers import PostgreSQL, Redis
from tests.waiting import wait_until


def is_alive(pid: int) -> bool:
    try:
        return "Z" not in Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return False


def test_each_url_is_an_empty_database(postgresql_server: PostgreSQL) -> None:
    first, second = postgresql_server.url(), postgresql_server.url()
    with psycopg.connect(first) as connection:
        connection.execute("CREATE TABLE t (x int)")
    with psycopg.connect(second) as connection:
        assert connection.execute("SELECT to_regclass('t')").fetchone() == (None,)


def test_the_secret_url_needs_the_password(postgresql_server: PostgreSQL) -> None:
    url = postgresql_server.secret_url()
    variable = f"${{{postgresql_server.password_variable}}}"
    assert variable in url
    with psycopg.connect(url.replace(variable, quote(postgresql_server.password, safe=""))) as connection:
        assert connection.execute("SELECT 1").fetchone() == (1,)
    with pytest.raises(psycopg.OperationalError, match="password"):
        psycopg.connect(url.replace(variable, "wrong"))


def test_data_outlive_a_restart(own_postgresql: PostgreSQL) -> None:
    url = own_postgresql.url()
    with psycopg.connect(url) as connection:
        connection.execute("CREATE TABLE t (x int)")
    own_postgresql.restart()
    with psycopg.connect(url) as connection:
        assert connection.execute("SELECT to_regclass('t')").fetchone() == ("t",)


@pytest.mark.parametrize("kind", [PostgreSQL, Redis])
def test_no_server_outlives_a_killed_test_run(kind: type) -> None:
    code = f"""
import os, signal
from tests.servers import {kind.__name__}
server = {kind.__name__}().start()
print(server.process.pid, server.folder, flush=True)
os.kill(os.getpid(), signal.SIGKILL)
"""
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=Path.cwd())
    assert result.returncode == -signal.SIGKILL, result.stderr
    pid, folder = result.stdout.split()
    wait_until(lambda: not is_alive(int(pid)), "the server's end")
    subprocess.run(["rm", "-rf", folder], check=True)


def test_each_storage_kind_has_a_url(storage_url: str) -> None:
    assert storage_url.split("://")[0] in STORAGE_KINDS
