"""What happens to jobs on a cluster: cancelled, queued again, preempted, out of time; their nodes and SLURM gone."""

from __future__ import annotations

import random
import signal
import time
from collections.abc import Callable
from pathlib import Path
from textwrap import dedent

from tests.faults import evidence, printed, verdict
from tests.faults.verdict import SETTLED, History, Verdict
from tests.slurm.cluster import ENDED, Cluster, Job
from tests.slurm.study import SlurmStudy

JOBS = 3
GRACE = 10.0  # seconds
PATIENCE = 180  # seconds until the next trial begins


class FaultyCluster:
    """A study of several jobs, and all that can befall them. Cancelled jobs are replaced by `aimlhpo submit`.

    The last trials do not end before `let_end`, so that there is always something to interrupt.
    """

    def __init__(self, folder: Path, cluster: Cluster, n_trials: int, seconds: float = 1.0) -> None:
        slurm = {"jobs": JOBS, "batch": {"gres": "gpu:1", "cpus-per-task": 2}}
        self.study = SlurmStudy(folder, cluster, slurm, n_trials=n_trials, grace_period=GRACE)
        (folder / "objective.py").write_text(dedent(evidence.objective(seconds)))
        (folder / "hold").write_text(str(n_trials - JOBS))
        self.cluster = cluster
        self.random = random.Random(0)
        self.moments: list[float] = []
        self.lost_jobs = 0

    @property
    def lines(self) -> list[evidence.Line]:
        return evidence.read(self.study.folder / "evidence")

    def running(self) -> list[Job]:
        return [job for job in self.cluster.jobs() if job.state == "RUNNING" and job.name == "s"]

    def trains(self) -> bool:
        """Whether a trial is being trained now, in a job."""
        lines = self.lines
        ended = {(line.number, line.pid) for line in lines if line.event == "end"}
        begun = {(line.number, line.pid) for line in lines} - ended
        return bool(self.running()) and any(Path(f"/proc/{pid}").exists() for _, pid in begun)

    def trains_again(self) -> bool:
        """The same; where SLURM has lost all jobs (it was killed with their last change unsaved), new ones are sent."""
        if all(job.state in ENDED for job in self.study.cluster.jobs() if job.name == "s"):
            self.study.verb("submit")
            self.lost_jobs += 1
        return self.trains()

    def inject(self, fault: Callable[[Job], None]) -> None:
        """Let it happen to a job that runs."""
        jobs: list[Job] = []

        def found() -> bool:
            jobs[:] = self.running() if self.trains_again() else []
            return bool(jobs)

        try:
            self.cluster.wait_for(found, "a trial in a job", PATIENCE)
        except AssertionError as error:
            raise AssertionError(f"{error}\n{self.study.logs()[-2000:]}\n{self.cluster.jobs()[-6:]}") from error
        self.moments.append(time.monotonic())
        job = self.random.choice(jobs)
        try:
            fault(job)
        except AssertionError:
            if self.cluster.state(job.id) == "RUNNING":  # else something else has happened to it meanwhile
                raise

    def let_end(self, seconds: float) -> None:
        (self.study.folder / "hold").unlink()
        self.study.wait_for_end(seconds)

    def scancel(self, job: Job) -> None:
        self.cluster.scancel(f"{job.array_id}_{job.index}")  # the id of one of them is that of the whole array
        self.study.verb("submit", "--jobs", "1")

    def requeue(self, job: Job) -> None:
        self.cluster.requeue(job.id)

    def walltime(self, job: Job) -> None:
        self.cluster.signal_batch(job.id, signal.SIGUSR1)

    def preempt(self, job: Job) -> None:
        urgent = ("--partition=urgent", "--exclusive", f"--nodelist={job.node}", "--output=/dev/null")
        self.cluster.sbatch(*urgent, "--wrap", "sleep 1", cwd=self.study.folder)

    def node_down(self, job: Job) -> None:
        self.cluster.down_node(job.node)
        self.cluster.resume_node(job.node)

    def node_killed(self, job: Job) -> None:
        self.cluster.kill_node(job.node)
        time.sleep(1)
        self.cluster.resume_node(job.node)

    def controller_killed(self, job: Job) -> None:
        self.cluster.kill_controller()
        time.sleep(2)
        self.cluster.start_controller()

    def everything(self) -> list[Callable[[Job], None]]:
        return [
            self.scancel, self.requeue, self.walltime, self.preempt,
            self.node_down, self.node_killed, self.controller_killed,
        ]  # fmt: skip

    def judge(self, fault: str) -> Verdict:
        lines = self.lines
        trials = self.study.study().get_trials()
        history = History(lines, self._killed(lines), {})
        return Verdict(
            fault,
            "journal",
            len(self.moments),
            lost=len(verdict.lost(history, trials)),
            twice=len(verdict.twice(history)),
            running=sum(trial.state.name == "RUNNING" for trial in trials),
            missed=verdict.missed(trials, self.study.config.optuna.n_trials),
            misprinted=len(printed.misprinted(self.study.save_path, trials)),
            resumed=(),  # the last trials are held back by the harness
            note=f"all jobs lost {self.lost_jobs} times" if self.lost_jobs else "",
        )

    def _killed(self, lines: list[evidence.Line]) -> dict[int, float]:
        """Workers of which nothing more was heard soon after a fault count as killed by it."""
        last = {line.pid: line.at for line in lines}
        near = {pid: [m for m in self.moments if m - SETTLED < at < m + GRACE] for pid, at in last.items()}
        return {pid: max(moments) for pid, moments in near.items() if moments}


def cluster_faults(folder: Path, cluster: Cluster, rounds: int, n_trials: int, seconds: float = 3.0) -> Verdict:
    """Every fault `rounds` times, in random order, with enough trials that most are not held yet."""
    scene = FaultyCluster(folder, cluster, n_trials, seconds)
    scene.study.submit()
    faults = scene.everything() * rounds
    scene.random.shuffle(faults)
    for fault in faults:
        scene.inject(fault)
    scene.let_end(600)
    return scene.judge("jobs and nodes: all seven faults")
