"""Every file of one virtual cluster: all of them lie under one directory."""

from __future__ import annotations

import os
import stat
import tempfile
from dataclasses import dataclass
from pathlib import Path

from virtual_cluster.errors import ClusterError

SOCKET_PATH_LIMIT = 100  # the kernel takes 107 bytes for a Unix socket, and munged adds a suffix


def default_directory() -> Path:
    """The directory of `cluster up` without --dir: one per user."""
    runtime = os.environ.get("XDG_RUNTIME_DIR")
    # Root's runtime directory is closed to the mysql user, who must reach the accounting database.
    parent = runtime if runtime and os.geteuid() != 0 else tempfile.gettempdir()
    return Path(parent) / f"aimlhpo-slurm-{os.geteuid()}"


@dataclass(frozen=True)
class Layout:
    """File names under the cluster's directory."""

    root: Path

    @property
    def slurm_conf(self) -> Path:
        return self.root / "slurm.conf"

    @property
    def gres_conf(self) -> Path:
        return self.root / "gres.conf"

    @property
    def slurmdbd_conf(self) -> Path:
        return self.root / "slurmdbd.conf"

    @property
    def options(self) -> Path:
        """The options and ports that this cluster was started with, as JSON."""
        return self.root / "cluster.json"

    @property
    def logs(self) -> Path:
        return self.root / "log"

    @property
    def run(self) -> Path:
        """Process ids: one file per daemon, and the supervisor's."""
        return self.root / "run"

    @property
    def wanted(self) -> Path:
        """One empty file per daemon that the supervisor shall start."""
        return self.root / "wanted"

    @property
    def spool(self) -> Path:
        return self.root / "spool"

    @property
    def state(self) -> Path:
        """What slurmctld keeps over its own restarts: jobs, nodes."""
        return self.root / "state"

    @property
    def devices(self) -> Path:
        """Links that stand for GPUs."""
        return self.root / "dev"

    @property
    def munge(self) -> Path:
        return self.root / "munge"

    @property
    def munge_socket(self) -> Path:
        return self.munge / "socket"

    @property
    def munge_key(self) -> Path:
        return self.munge / "key"

    @property
    def database(self) -> Path:
        return self.root / "mariadb"

    def log(self, name: str) -> Path:
        return self.logs / f"{name}.log"

    def pid(self, name: str) -> Path:
        return self.run / f"{name}.pid"

    @property
    def supervisor(self) -> Path:
        return self.pid("supervisor")

    def create(self) -> None:
        """Make the directories. Raises ClusterError where the directory cannot be used."""
        self._check()
        self.root.mkdir(parents=True, exist_ok=True)
        self.root.chmod(0o755)
        for directory in (self.logs, self.run, self.wanted, self.spool, self.state, self.devices, self.munge):
            directory.mkdir(exist_ok=True)

    def _check(self) -> None:
        if any(character in str(self.root) for character in " #,=\t\n\"'\\%"):
            raise ClusterError(f"--dir {self.root}: slurm.conf can hold no space and none of # , = % \" ' \\")
        if len(os.fsencode(self.munge_socket)) > SOCKET_PATH_LIMIT:
            raise ClusterError(f"--dir {self.root}: too long for a socket's name; use a shorter one")
        check_owner(self.root)


def check_owner(root: Path) -> None:
    """Raises ClusterError for a directory that somebody else made, or that holds anything but a cluster."""
    try:
        status = root.lstat()
    except FileNotFoundError:
        return
    if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.geteuid():
        raise ClusterError(f"--dir {root}: not a directory of yours; name another one")
    if any(root.iterdir()) and not Layout(root).options.exists():
        raise ClusterError(f"--dir {root}: holds other files; name a new or empty directory")
