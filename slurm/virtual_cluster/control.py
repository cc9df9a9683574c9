"""Talking to a cluster that runs: its supervisor, its daemons, its commands."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import time
from collections.abc import Callable

from virtual_cluster import processes
from virtual_cluster.daemons import find
from virtual_cluster.errors import ClusterError
from virtual_cluster.layout import Layout
from virtual_cluster.options import Options

TIMEOUT = 60.0  # seconds that one change of state may take


class Control:
    """One running cluster. Raises ClusterError where there is none."""

    def __init__(self, layout: Layout) -> None:
        self.layout = layout
        try:
            self.options = Options.load(layout.options)
        except (OSError, ValueError):
            raise ClusterError(f"no cluster in {layout.root}: start one with `cluster up`") from None

    def start(self, name: str) -> None:
        """Ask the supervisor for a daemon, and wait until its process is there or has ended."""
        wanted = self.layout.wanted / name
        wanted.touch()
        wait_until(lambda: self.pid(name) is not None or not wanted.exists(), f"{name} does not start")

    def kill(self, name: str) -> None:
        """SIGKILL a daemon, as a crash would."""
        pid = self.pid(name)
        if pid is not None:
            processes.send(pid, signal.SIGKILL)
        wait_until(lambda: self.pid(name) is None, f"{name} does not end")

    def kill_node(self, name: str) -> None:
        """End a node's slurmd with every step and job below it, as a power cut would."""
        processes.kill(lambda: self.processes_of(name))
        wait_until(lambda: self.pid(name) is None, f"{name} does not end")

    def processes_of(self, node: str) -> set[int]:
        """slurmd and the steps, which leave its process tree, with all that they started."""
        return processes.descendants(self.daemons_of(node))

    def daemons_of(self, node: str) -> set[int]:
        """slurmd and the steps alone: a job does not inherit their environment.

        A step's own process has written its title over its environment. What it has started names the node.
        """
        daemon, task = f"{processes.DAEMON}={node}".encode(), f"SLURMD_NODENAME={node}".encode()
        environments = {pid: processes.environment(pid) for pid in processes.marked(self.layout.root)}
        parents = {processes.parent(pid) for pid, found in environments.items() if task in found}
        steps = {pid for pid in parents if processes.name(pid) == "slurmstepd"}
        return steps | {pid for pid, found in environments.items() if daemon in found}

    def pid(self, name: str) -> int | None:
        """The daemon's process id while it lives."""
        try:
            pid = int(self.layout.pid(name).read_text())
        except (OSError, ValueError):
            return None
        return pid if processes.identity(pid) else None

    def ended(self, name: str) -> bool:
        return not (self.layout.wanted / name).exists()

    def environment(self) -> dict[str, str]:
        """What a shell needs for sbatch and its like to talk to this cluster."""
        return {"SLURM_CONF": str(self.layout.slurm_conf)}

    def command(self, *argv: str, timeout: float = 30) -> subprocess.CompletedProcess[str]:
        """Run one of SLURM's commands against this cluster; never raises for its exit status."""
        try:
            return subprocess.run(
                [find(argv[0]), *argv[1:]],
                env={**os.environ, **self.environment()},
                text=True,
                capture_output=True,
                timeout=timeout,
                stdin=subprocess.DEVNULL,
            )
        except subprocess.TimeoutExpired:
            return subprocess.CompletedProcess(argv, 124, "", f"{argv[0]} gave no answer in {timeout:g} s")

    def munge_answers(self) -> bool:
        return self.command("munge", "-n", "-S", str(self.layout.munge_socket), timeout=5).returncode == 0

    def database_answers(self) -> bool:
        return _listens(self.options.ports.database)

    def slurmdbd_answers(self) -> bool:
        asked = ("sacctmgr", "-n", "list", "cluster")
        return _listens(self.options.ports.slurmdbd) and self.command(*asked).returncode == 0

    def controller_answers(self) -> bool:
        return _listens(self.options.ports.controller) and self.command("scontrol", "ping").returncode == 0

    def node_states(self) -> dict[str, str]:
        """Node name to state; empty while slurmctld does not answer."""
        if not _listens(self.options.ports.controller):
            return {}
        answer = self.command("sinfo", "-h", "-N", "-p", "main", "-o", "%N %T", timeout=10).stdout
        return dict(re.findall(r"^(\S+) (\S+)$", answer, re.MULTILINE))

    def queue_is_empty(self) -> bool:
        """Whether nothing waits, runs or ends."""
        answer = self.command("squeue", "-h")
        return answer.returncode == 0 and not answer.stdout.strip()

    def is_empty(self) -> bool:
        return self.queue_is_empty() and self.nodes_are_idle()

    def nodes_are_idle(self) -> bool:
        states = self.node_states()
        return len(states) == self.options.nodes and set(states.values()) == {"idle"}


def wait_until(is_so: Callable[[], bool], complaint: str, timeout: float = TIMEOUT) -> None:
    """Raises ClusterError with the complaint when `timeout` seconds are over."""
    deadline = time.monotonic() + timeout
    while not is_so():
        if time.monotonic() > deadline:
            raise ClusterError(f"{complaint} in {timeout:g} s")
        time.sleep(0.02)


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        probe.settimeout(2)
        return probe.connect_ex(("127.0.0.1", port)) == 0
