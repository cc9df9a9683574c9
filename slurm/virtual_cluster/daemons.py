"""How each daemon is started: its command line and the user it runs as."""

from __future__ import annotations

import os
import shutil
from dataclasses import dataclass

from virtual_cluster.errors import ClusterError
from virtual_cluster.layout import Layout
from virtual_cluster.options import Options

PACKAGES = {
    "munged": "munge",
    "slurmctld": "slurmctld",
    "slurmd": "slurmd",
    "sbatch": "slurm-client",
    "slurmdbd": "slurmdbd",
    "mariadbd": "mariadb-server",
    "mariadb-install-db": "mariadb-server",
}
ACCOUNTING = ("slurmdbd", "mariadbd", "mariadb-install-db")


@dataclass(frozen=True)
class Command:
    """A daemon in the foreground; `user` where it shall not run as root."""

    argv: tuple[str, ...]
    user: str | None = None


def find(program: str) -> str:
    """The program's path. Raises ClusterError naming the package that holds it."""
    path = shutil.which(program, path=f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin:/usr/local/sbin")
    if path is None:
        raise ClusterError(f"{program} is not installed: apt-get install {PACKAGES.get(program, program)}")
    return path


def check_packages(accounting: bool) -> None:
    """Raises ClusterError naming every package that is missing, in one command to type."""
    missing = []
    for program in PACKAGES:
        try:
            if accounting or program not in ACCOUNTING:
                find(program)
        except ClusterError:
            missing.append(PACKAGES[program])
    if missing:
        packages = " ".join(dict.fromkeys(missing))
        raise ClusterError(
            f"missing programs; on Debian and Ubuntu, as root: apt-get install {packages}\n"
            "(the packages' own daemons need not run; systemctl disable them if they do)"
        )


def command(layout: Layout, options: Options, name: str) -> Command:
    """How to start `name`: munged, mariadbd, slurmdbd, slurmctld, or a node's slurmd by the node's name."""
    if name == "munged":
        return _munged(layout)
    if name == "mariadbd":
        return _mariadbd(layout, options)
    if name in ("slurmdbd", "slurmctld"):
        return Command((find(name), "-D"))
    return Command((find("slurmd"), "-D", "-N", name, "-f", str(layout.slurm_conf)))


def _munged(layout: Layout) -> Command:
    # --force: root may own the key and the socket, and a log that others can read, in a container too.
    names = {"socket": "socket", "key-file": "key", "pid-file": "pid", "log-file": "log", "seed-file": "seed"}
    files = (f"--{option}={layout.munge / name}" for option, name in names.items())
    return Command((find("munged"), "--foreground", "--force", *files))


def database_user() -> str | None:
    """MariaDB does not run as root."""
    return "mysql" if os.geteuid() == 0 else None


def _mariadbd(layout: Layout, options: Options) -> Command:
    data = layout.database
    return Command(
        (
            find("mariadbd"),
            "--no-defaults",
            f"--datadir={data / 'data'}",
            f"--socket={data / 'socket'}",
            f"--pid-file={data / 'pid'}",
            f"--init-file={data / 'init.sql'}",
            f"--port={options.ports.database}",
            "--bind-address=127.0.0.1",
            "--skip-name-resolve",
            "--innodb-flush-log-at-trx-commit=0",
            "--innodb-lock-wait-timeout=900",
            "--innodb-buffer-pool-size=64M",
        ),
        database_user(),
    )
