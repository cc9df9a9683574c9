"""A virtual SLURM cluster as tests use it; `slurm/cluster` does the work."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from tests.waiting import wait_until

COMMAND = Path(__file__).resolve().parents[2] / "slurm" / "cluster"
ENDED = ("COMPLETED", "FAILED", "CANCELLED", "TIMEOUT", "NODE_FAIL", "PREEMPTED", "OUT_OF_MEMORY", "gone")
QUEUE = {
    "id": "JobID",
    "array_id": "ArrayJobID",
    "index": "ArrayTaskID",
    "state": "State",
    "reason": "Reason",
    "restarts": "RestartCnt",
    "node": "NodeList",
    "time_limit": "TimeLimit",
    "name": "Name",
}
WIDTH = 60


@dataclass(frozen=True)
class Job:
    """One line of squeue: a job, or an element of an array."""

    id: int
    array_id: str
    index: str
    state: str
    reason: str
    restarts: int
    node: str
    time_limit: str
    name: str


def run_cluster(*argv: str, check: bool = True, timeout: float = 150) -> subprocess.CompletedProcess[str]:
    """`slurm/cluster VERB ...`; its words are in the exception when it fails."""
    done = subprocess.run(
        [sys.executable, str(COMMAND), *argv], text=True, timeout=timeout, capture_output=True, stdin=subprocess.DEVNULL
    )
    if check and done.returncode != 0:
        raise AssertionError(f"cluster {' '.join(argv)}: exit status {done.returncode}\n{done.stdout}{done.stderr}")
    return done


def processes_of(directory: Path) -> list[str]:
    """Command lines of all processes that belong to the cluster in `directory`."""
    mark = f"AIMLHPO_VIRTUAL_CLUSTER={directory}".encode()
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if mark in (process / "environ").read_bytes().split(b"\0"):
                found.append((process / "cmdline").read_text().replace("\0", " "))
        except OSError:
            continue
    return [line for line in found if line]


class Cluster:
    """A cluster that lives as long as the `with` block, and no longer than this process."""

    def __init__(self, *options: str, directory: Path | None = None) -> None:
        self.directory = (directory or Path(tempfile.mkdtemp(prefix="aimlhpo-slurm-test-"))).resolve()
        self._options = options

    def __enter__(self) -> Self:
        run_cluster("up", "--dir", str(self.directory), "--watch-pid", str(os.getpid()), *self._options)
        self.home.mkdir()
        return self

    def __exit__(self, *error: object) -> None:
        run_cluster("down", "--dir", str(self.directory))

    @property
    def settings(self) -> dict[str, str]:
        """What `cluster env` exports."""
        return {"SLURM_CONF": str(self.directory / "slurm.conf")}

    @property
    def home(self) -> Path:
        return self.directory / "home"

    @property
    def env(self) -> dict[str, str]:
        """An environment for subprocesses: this one without what another SLURM put in it, and `settings`.

        Jobs start login shells; an empty home keeps the developer's profile, which may be slow, out of them.
        """
        outer = {name: value for name, value in os.environ.items() if not name.startswith(("SLURM", "SBATCH"))}
        return {**outer, **self.settings, "HOME": str(self.home)}

    def run(
        self,
        *argv: str,
        check: bool = True,
        timeout: float = 60,
        cwd: Path | None = None,
        env: Mapping[str, str] | None = None,
    ) -> subprocess.CompletedProcess[str]:
        """Any command, with this cluster as its SLURM."""
        done = subprocess.run(
            argv,
            env={**self.env, **(env or {})},
            text=True,
            capture_output=True,
            cwd=cwd,
            timeout=timeout,
            stdin=subprocess.DEVNULL,
        )
        if check and done.returncode != 0:
            raise AssertionError(f"{argv}: exit status {done.returncode}\n{done.stdout}{done.stderr}")
        return done

    def sbatch(self, *argv: str, cwd: Path | None = None) -> int:
        """Submit; the job's (or the array's) id."""
        return int(self.run("sbatch", "--parsable", *argv, cwd=cwd).stdout)

    def scancel(self, *argv: str | int) -> None:
        self.run("scancel", *map(str, argv))

    def scontrol(self, *argv: str | int) -> str:
        return self.run("scontrol", *map(str, argv)).stdout

    def squeue(self, *argv: str) -> str:
        """The output of `squeue ...`, without header."""
        return self.run("squeue", "--noheader", *argv).stdout

    def jobs(self, array: int | None = None) -> list[Job]:
        """All jobs that slurmctld remembers, finished ones too; only those of one job or array if asked."""
        text = self.squeue("--array", "--states=all", "-O", ",".join(f"{field}:{WIDTH}" for field in QUEUE.values()))
        found = [_job(line) for line in text.splitlines()]
        return [job for job in found if array is None or array in (job.id, int(job.array_id))]

    def states(self, array: int) -> list[str]:
        """The states of a job's or array's elements, sorted; empty when it is forgotten."""
        return sorted(job.state for job in self.jobs(array))

    def state(self, job: int) -> str:
        """One job's state; "gone" when it is forgotten."""
        return next((found.state for found in self.jobs() if found.id == job), "gone")

    def wait_for(self, condition: Callable[[], bool], what: str = "the cluster", seconds: float = 90) -> None:
        wait_until(condition, what, seconds)

    def wait_for_state(self, job: int, *states: str, seconds: float = 90) -> None:
        """Until all of a job's or array's elements are in one of the states."""
        wait_until(lambda: set(self.states(job) or ["gone"]) <= set(states), f"job {job} to be {states}", seconds)

    def wait_for_end(self, job: int, seconds: float = 90) -> None:
        """Until a job, or all of an array, has ended in whatever way."""
        self.wait_for_state(job, *ENDED, seconds=seconds)

    def end_in(self, job: int, seconds: int) -> None:
        """Move a running job's end; slurmctld acts on it at its next look, within 30 s after it."""
        self.scontrol("update", f"JobId={job}", f"EndTime=now+{seconds}")

    def signal_batch(self, job: int, number: signal.Signals) -> None:
        """What `--signal=B:...` does near the end of the walltime, at once."""
        self.scancel(f"--signal={number.name.removeprefix('SIG')}", "--batch", job)

    def requeue(self, job: int | str) -> None:
        self.scontrol("requeue", job)

    def kill_controller(self, now: bool = False) -> None:
        """SIGKILL slurmctld; `now`: with the jobs of the last seconds unsaved."""
        self._cluster("kill-controller", *(["--now"] if now else []))

    def start_controller(self) -> None:
        self._cluster("start-controller")

    def down_node(self, node: str) -> None:
        """An administrator sets a node DOWN."""
        self._cluster("down-node", node)

    def kill_node(self, node: str) -> None:
        """A power cut: nobody tells slurmctld."""
        self._cluster("kill-node", node)

    def resume_node(self, node: str) -> None:
        self._cluster("resume-node", node)

    def drain(self) -> None:
        """No job left, all daemons running, all nodes idle."""
        self._cluster("reset")

    def ports(self) -> dict[str, object]:
        """The ports that this cluster listens on."""
        return dict(json.loads((self.directory / "cluster.json").read_text())["ports"])

    def _cluster(self, verb: str, *argv: str) -> None:
        run_cluster(verb, "--dir", str(self.directory), *argv)


def _job(line: str) -> Job:
    cells = [line[start : start + WIDTH].strip() for start in range(0, WIDTH * len(QUEUE), WIDTH)]
    fields = dict(zip(QUEUE, cells, strict=True))
    return Job(**{**fields, "id": int(fields["id"]), "restarts": int(fields["restarts"])})  # type: ignore[arg-type]
