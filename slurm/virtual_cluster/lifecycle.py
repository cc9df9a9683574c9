"""Bringing a whole cluster up and taking it down."""

from __future__ import annotations

import os
import re
import secrets
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path
from typing import IO

from virtual_cluster import accounting, processes
from virtual_cluster.control import Control
from virtual_cluster.daemons import check_packages
from virtual_cluster.errors import ClusterError
from virtual_cluster.layout import Layout, check_owner
from virtual_cluster.options import Options, free_ports
from virtual_cluster.render import gres_conf, slurm_conf
from virtual_cluster.supervisor import READY

_NOISE = re.compile("mpi|MPI|hwloc|CPU frequency")
ATTEMPTS = 3  # a port that was free a moment ago may be somebody's now


def up(layout: Layout, options: Options, watched: int | None, timeout: float) -> None:
    """Start a cluster; returns when every node is idle. Raises ClusterError with the daemons' last words."""
    check_packages(options.accounting)
    for attempt in range(1, ATTEMPTS + 1):
        try:
            return _attempt(layout, options, watched, timeout)
        except PortTaken:
            if attempt == ATTEMPTS:
                raise
            options = replace(options, ports=free_ports(options.nodes))


class PortTaken(ClusterError):
    """Another process was quicker."""


def _attempt(layout: Layout, options: Options, watched: int | None, timeout: float) -> None:
    if is_running(layout):
        raise ClusterError(f"a cluster runs in {layout.root} already; stop it with `cluster down`")
    down(layout)
    layout.create()
    try:
        _write(layout, options)
        with _start_supervisor(layout, watched) as pipe:
            _start_daemons(Control(layout), time.monotonic() + timeout)
            pipe.write(READY)
    except BaseException:
        down(layout)
        raise


def _write(layout: Layout, options: Options) -> None:
    options.save(layout.options)
    layout.munge_key.write_bytes(secrets.token_bytes(128))
    layout.munge_key.chmod(0o400)
    layout.slurm_conf.write_text(slurm_conf(layout, options))
    layout.gres_conf.write_text(gres_conf(layout, options))
    for index in range(options.gpus):
        # slurmd asks for a character device, and takes the GPU's index from the end of its name.
        (layout.devices / f"gpu{index}").symlink_to("/dev/null")
    if options.accounting:
        accounting.prepare(layout, options)


def _start_supervisor(layout: Layout, watched: int | None) -> IO[bytes]:
    """A process of its own; the pipe to it says READY, or closes when this process dies."""
    script = Path(__file__).resolve().parent.parent / "cluster"
    watch = ["--watch-pid", str(watched)] if watched else []
    environment = {**os.environ, processes.MARKER: str(layout.root)}
    with open(layout.log("supervisor"), "ab") as log:
        supervisor = subprocess.Popen(
            [sys.executable, str(script), "supervise", "--dir", str(layout.root), *watch],
            stdin=subprocess.PIPE,
            stdout=log,
            stderr=log,
            env=environment,
            cwd="/",
            start_new_session=True,
        )
    assert supervisor.stdin is not None
    return supervisor.stdin


def _start_daemons(control: Control, deadline: float) -> None:
    options = control.options
    control.start("munged")
    _wait(control.munge_answers, deadline, "munged does not answer", control, ["munged"])
    if options.accounting:
        _start_accounting(control, deadline)
    names = ["slurmctld", *options.node_names]
    for name in names:
        control.start(name)
    _wait(control.nodes_are_idle, deadline, "the nodes do not become idle", control, names)


def _start_accounting(control: Control, deadline: float) -> None:
    control.start("mariadbd")
    _wait(control.database_answers, deadline, "mariadbd does not answer", control, ["mariadbd"])
    control.start("slurmdbd")
    _wait(control.slurmdbd_answers, deadline, "slurmdbd does not answer", control, ["mariadbd", "slurmdbd"])
    control.command("sacctmgr", "-i", "add", "cluster", "virtual")


def _wait(answers: Callable[[], bool], deadline: float, complaint: str, control: Control, names: list[str]) -> None:
    """Ask until the answer is yes, a daemon ends, or the time is over."""
    while not answers():
        ended = [name for name in names if control.ended(name)]
        if ended:
            last_words = tails(control.layout, ended)
            kind = PortTaken if "already in use" in last_words else ClusterError
            raise kind(f"{', '.join(ended)} ended while starting\n\n{last_words}")
        if time.monotonic() > deadline:
            words = tails(control.layout, names, lines=5)
            raise ClusterError(f"{complaint} in the time given (see --timeout)\n\n{words}")
        time.sleep(0.05)


def is_running(layout: Layout) -> bool:
    """Whether a supervisor of this directory lives."""
    pid = _supervisor(layout)
    return pid is not None and pid in processes.marked(layout.root)


def _supervisor(layout: Layout) -> int | None:
    try:
        return int(layout.supervisor.read_text())
    except (OSError, ValueError):
        return None


def down(layout: Layout) -> None:
    """End every process of the cluster and remove its directory; says nothing where there is none."""
    check_owner(layout.root)
    pid = _supervisor(layout)
    if pid is not None and is_running(layout):
        processes.send(pid, signal.SIGTERM)
        processes.wait_for_exit(pid, 30)
    left = processes.kill(lambda: processes.marked(layout.root))
    if left:
        raise ClusterError(f"processes that cannot be ended: {sorted(left)}")
    if layout.options.exists():
        shutil.rmtree(layout.root)


def tails(layout: Layout, names: Iterable[str], lines: int = 15) -> str:
    """The last lines of these daemons' logs, without what SLURM says of plugins that nobody needs here."""
    parts = []
    for name in names:
        text = layout.log(name).read_text(errors="replace") if layout.log(name).exists() else ""
        kept = [line for line in text.splitlines() if not _NOISE.search(line)]
        parts += [f"--- {name}", *kept[-lines:]] if kept else []
    return "\n".join(parts)
