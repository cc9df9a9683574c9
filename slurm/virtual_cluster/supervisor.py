"""The parent of a cluster's daemons: starts what is wanted, and leaves nothing when it ends.

It ends on SIGTERM (`cluster down`), when the process that it watches is gone, and when `cluster up` dies
before the cluster is ready. Being a subreaper, it stays an ancestor of every step and job, however they
detach themselves.
"""

from __future__ import annotations

import os
import select
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from types import FrameType

from virtual_cluster import processes
from virtual_cluster.daemons import Command, command
from virtual_cluster.layout import Layout
from virtual_cluster.options import Options

TICK = 0.1  # seconds between two looks at what is wanted
READY = b"ready\n"


class Supervisor:
    """Runs until told to stop; `watched` is a process id whose end is the cluster's end."""

    def __init__(self, layout: Layout, watched: int | None) -> None:
        self._layout = layout
        self._options = Options.load(layout.options)
        self._watched = watched
        self._watched_identity = processes.identity(watched) if watched else None
        self._running: dict[str, subprocess.Popen[bytes]] = {}
        self._ready = False
        self._stopping = False

    def run(self) -> None:
        """Start, reap, and in the end remove everything."""
        processes.prctl(processes.PR_SET_CHILD_SUBREAPER, 1)
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(number, self._stop)
        try:
            while not self._stopping:
                self._start_wanted()
                self._reap()
                self._look_up()
        finally:
            self._shut_down()

    def _stop(self, number: int, frame: FrameType | None) -> None:
        self._stopping = True

    def _start_wanted(self) -> None:
        for name in os.listdir(self._layout.wanted):
            if name not in self._running:
                self._running[name] = self._start(name, command(self._layout, self._options, name))
                _write(self._layout.pid(name), str(self._running[name].pid))

    def _start(self, name: str, what: Command) -> subprocess.Popen[bytes]:
        layout = self._layout
        conf = layout.slurmdbd_conf if name == "slurmdbd" else layout.slurm_conf
        marks = {processes.MARKER: str(layout.root), processes.DAEMON: name}
        environment = {**os.environ, **marks, "SLURM_CONF": str(conf)}
        with open(layout.log(name), "ab") as log:
            return subprocess.Popen(
                what.argv,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd="/",
                user=what.user,
                group=what.user,
                extra_groups=[] if what.user else None,
                preexec_fn=_die_with_parent,
                start_new_session=True,
            )

    def _reap(self) -> None:
        for name, process in list(self._running.items()):
            if process.poll() is not None:
                del self._running[name]
                self._layout.pid(name).unlink(missing_ok=True)
                (self._layout.wanted / name).unlink(missing_ok=True)
                print(f"{name} ended: {process.returncode}", flush=True)
        self._reap_orphans()

    def _reap_orphans(self) -> None:
        """Steps and jobs that lost their parent; the daemons are left to their own objects."""
        known = {process.pid for process in self._running.values()}
        while True:
            try:
                found = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
            except ChildProcessError:
                return
            if found is None or found.si_pid in known:
                return
            os.waitpid(found.si_pid, 0)

    def _look_up(self) -> None:
        """Wait a moment; end with the watched process, and with `cluster up` until that has said ready."""
        readable, _, _ = select.select([] if self._ready else [sys.stdin.fileno()], [], [], TICK)
        if readable:
            self._ready = os.read(sys.stdin.fileno(), 64) == READY
            self._stopping = self._stopping or not self._ready
        if self._watched and processes.identity(self._watched) != self._watched_identity:
            self._stopping = True

    def _shut_down(self) -> None:
        left = processes.kill(self._find_others)
        if left:
            print(f"would not die: {sorted(left)}", flush=True)
        self._reap_all()
        shutil.rmtree(self._layout.root, ignore_errors=True)

    def _find_others(self) -> set[int]:
        self._reap_all()
        return (processes.descendants([os.getpid()]) | processes.marked(self._layout.root)) - {os.getpid()}

    def _reap_all(self) -> None:
        try:
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass
        except ChildProcessError:
            pass


def _die_with_parent() -> None:
    processes.prctl(processes.PR_SET_PDEATHSIG, signal.SIGKILL)


def _write(file: Path, text: str) -> None:
    temporary = file.with_suffix(".new")
    temporary.write_text(text)
    os.replace(temporary, file)
