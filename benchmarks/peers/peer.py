"""What the benchmark has to know of a peer."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.peers.environment import environment

PROGRAMS = Path(__file__).resolve().parents[1] / "programs"
Spec = dict[str, Any]
_THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")


@dataclass(frozen=True)
class Peer:
    """`commands(python, spec)` writes what is needed into spec["folder"] and gives the commands to run at once.

    `requirement` is what pip installs into the peer's own environment; None: it runs in this one.
    """

    name: str
    title: str
    package: str
    commands: Callable[[str, Spec], Sequence[Sequence[str]]]
    requirement: str | None = None

    def python(self) -> str:
        """Its interpreter. Raises PeerMissing where it cannot be installed."""
        return environment(self.name, self.requirement) if self.requirement else sys.executable

    def version(self) -> str:
        code = f"from importlib.metadata import version; print(version({self.package!r}))"
        return subprocess.run([self.python(), "-c", code], capture_output=True, text=True, check=True).stdout.strip()


def variables(spec: str) -> dict[str, str]:
    """The environment in which every peer runs: one thread for each trial's arithmetic."""
    path = os.pathsep.join([str(PROGRAMS), str(PROGRAMS.parents[1])])
    return {**os.environ, **dict.fromkeys(_THREADS, "1"), "BENCH_SPEC": spec, "PYTHONPATH": path}
