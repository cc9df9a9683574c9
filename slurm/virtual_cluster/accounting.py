"""A private MariaDB for slurmdbd."""

from __future__ import annotations

import os
import secrets
import shutil
import subprocess
from pathlib import Path

from virtual_cluster.daemons import database_user, find
from virtual_cluster.errors import ClusterError
from virtual_cluster.layout import Layout
from virtual_cluster.options import Options
from virtual_cluster.render import DATABASE_USER, slurmdbd_conf


def prepare(layout: Layout, options: Options) -> None:
    """An empty database, and a password that slurmdbd.conf alone holds. Raises ClusterError."""
    password = secrets.token_hex(16)
    data = layout.database / "data"
    layout.database.mkdir()
    _private(layout.database / "init.sql", _init_sql(password))
    _private(layout.slurmdbd_conf, slurmdbd_conf(layout, options, password))
    user = database_user()
    if user:
        _check_reachable(layout.root)
    _own(layout.database, user)
    _own(layout.database / "init.sql", user)
    _install(data, user)


def _install(data: Path, user: str | None) -> None:
    argv = [
        find("mariadb-install-db"),
        "--no-defaults",
        f"--datadir={data}",
        "--skip-test-db",
        "--auth-root-authentication-method=socket",
        *([f"--user={user}"] if user else []),
    ]
    done = subprocess.run(argv, capture_output=True, text=True, stdin=subprocess.DEVNULL)
    if done.returncode != 0:
        raise ClusterError(f"mariadb-install-db failed:\n{done.stdout[-2000:]}{done.stderr[-2000:]}")


def _init_sql(password: str) -> str:
    return (
        f"CREATE DATABASE IF NOT EXISTS slurm_acct;\n"
        f"CREATE USER IF NOT EXISTS '{DATABASE_USER}'@'127.0.0.1' IDENTIFIED BY '{password}';\n"
        f"GRANT ALL ON slurm_acct.* TO '{DATABASE_USER}'@'127.0.0.1';\n"
    )


def _private(file: Path, text: str) -> None:
    with open(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as stream:
        stream.write(text)


def _check_reachable(directory: Path) -> None:
    """The database's user must be able to walk to its files."""
    for parent in (directory, *directory.parents):
        if not parent.stat().st_mode & 0o001:
            raise ClusterError(f"--dir {directory}: {parent} is closed to the mysql user; name a directory under /tmp")


def _own(file: Path, user: str | None) -> None:
    if user:
        shutil.chown(file, user, user)
