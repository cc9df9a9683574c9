"""Studies that keep themselves supplied with jobs, on a real SLURM."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

import pytest

from aimlhpo.launch.slurm.queue import recorded_arrays
from tests.slurm.cluster import Cluster, Job
from tests.slurm.study import BREATH, SlurmStudy

SHORT = """
    import time
    from aimlhpo import BaseObjective

    class Objective(BaseObjective):
        def train(self, trial, conf):
            time.sleep(conf["seconds"])
            return {"val_loss": conf["model"]["x"]}
"""
ENDED = ("COMPLETED", "CANCELLED", "FAILED", "TIMEOUT", "PREEMPTED", "COMPLETING")


class KeptStudy(SlurmStudy):
    """A study with `keep: true`, whose jobs do not queue themselves again; of so many jobs, or of several sections."""

    def __init__(
        self,
        folder: Path,
        cluster: Cluster,
        jobs: int | list[dict[str, Any]],
        slurm: dict[str, Any] | None = None,
        **keys: Any,
    ) -> None:
        kept = {"keep": True, "requeue": False, **(slurm or {})}
        sections = jobs if isinstance(jobs, list) else [{"jobs": jobs}]
        made = [{**kept, **section} for section in sections]
        super().__init__(folder, cluster, made if isinstance(jobs, list) else made[0], **keys)

    def all_jobs(self) -> list[Job]:
        """The jobs of all arrays that were submitted for the study."""
        arrays = {int(file.stem) for file in (self.save_path / ".aimlhpo" / "jobs").glob("*.json")}
        return [job for job in self.cluster.jobs() if int(job.array_id) in arrays]

    def living(self) -> list[Job]:
        return [job for job in self.all_jobs() if job.state not in ENDED]

    def running(self) -> list[Job]:
        return [job for job in self.living() if job.state == "RUNNING"]

    def job_logs(self) -> list[Path]:
        return list((self.save_path / "logs").glob("job-*"))

    def announce_end(self, job: Job) -> None:
        """What SLURM does some time before the end of the job's time."""
        self.cluster.scancel("--signal=USR1", "--batch", element(job))


def element(job: Job) -> str:
    """The job as users name it: one of an array may have the array's own id."""
    return f"{job.array_id}_{job.index}"


def queue_each_second(study: KeptStudy, seconds: float) -> list[list[str]]:
    """What squeue shows of jobs that run, or wait for nothing but resources, each second until the study has ended.

    A job that waits for the end of the one that has submitted it is going to take its place.
    """
    end, seen = time.monotonic() + seconds, list[list[str]]()
    while True:
        shown = study.cluster.squeue("--array", "-O", "JobID:12,ArrayJobID:12,State:12,Dependency:60").splitlines()
        seen.append([line for line in shown if "COMPLETING" not in line and "unfulfilled" not in line])
        if not shown and study.finished() >= study.config.optuna.n_trials:
            return seen
        if time.monotonic() > end:
            raise AssertionError(f"the study did not end by itself: {study.states()}\n{study.logs()}")
        time.sleep(1 - BREATH)


@pytest.mark.slow
def test_jobs_of_a_minute_are_followed_by_others_until_the_budget_is_reached(cluster: Cluster, tmp_path: Path) -> None:
    slurm = {"batch": {"time": "00:01:00"}}
    study = KeptStudy(tmp_path, cluster, 3, slurm, objective=SHORT, n_trials=80, model={"seconds": 3})
    study.submit()
    most = max(queue_each_second(study, 400), key=len)
    assert len(most) == 3, most
    assert study.states() == {"COMPLETE": 80}
    submitted = study.status()["kept"]["submitted"]
    assert submitted >= 3
    arrays = recorded_arrays(study.config.paths)  # SLURM has forgotten the first of them by now
    assert sum(array.count for array in arrays) == 3 + submitted
    assert sum(log.read_text().count(" workers on ") for log in study.job_logs()) == 3 + submitted, study.logs()


def test_two_jobs_that_end_at_once_are_followed_by_two(cluster: Cluster, tmp_path: Path) -> None:
    study = KeptStudy(tmp_path, cluster, 2, variables={"STILL": 2}, n_trials=8)
    study.submit()
    cluster.wait_for(lambda: study.stands_still(2))
    first = study.running()
    assert len(first) == 2
    for job in first:
        study.announce_end(job)
    cluster.wait_for(lambda: study.finished() == 8 and not study.living(), study.logs())
    study.assert_resumed(2)
    assert len(study.all_jobs()) == 4
    assert study.status()["kept"] == {"jobs": 2, "fewer": 0, "submitted": 2, "limit": 1000, "failure": None}


def test_cancelled_jobs_are_followed_by_nothing(cluster: Cluster, tmp_path: Path) -> None:
    study = KeptStudy(tmp_path, cluster, 3, objective=SHORT, model={"seconds": 5}, n_trials=80)
    study.submit()
    cluster.wait_for(lambda: len(study.status()["agents"]) == 3 and study.finished() > 2, "all agents to work")
    one, *others = study.running()
    cluster.scancel(element(one))
    cluster.wait_for(lambda: study.status()["kept"]["fewer"] == 1, "the agent to note that its job was cancelled")
    # An agent whose time is over looks for missing jobs: the one that was cancelled is none of them.
    study.announce_end(others[0])
    cluster.wait_for(lambda: len(study.all_jobs()) == 4, "a job in the place of the one whose time is over")
    cluster.wait_for(lambda: len(study.running()) == 2, "that job to begin")
    cluster.scancel(*{job.array_id for job in study.living()})
    cluster.wait_for(lambda: not study.living(), "all jobs to end")
    assert len(study.all_jobs()) == 4
    assert study.finished() < 80


@pytest.mark.slow
def test_jobs_are_taken_away_after_their_trials(cluster: Cluster, tmp_path: Path) -> None:
    study = KeptStudy(tmp_path, cluster, 3, objective=SHORT, model={"seconds": 3}, n_trials=500)
    study.submit()
    cluster.wait_for(lambda: len(study.status()["agents"]) == 3 and study.finished() > 2, "all agents to work")
    assert "2 agents end after the trials" in study.verb("stop", "--jobs", "2", "--yes")
    cluster.wait_for(lambda: len(study.living()) == 1, "two jobs to end")
    assert study.status()["interrupted"] == []  # their trials have run to the end
    assert study.status()["kept"]["jobs"] == 1
    (last,) = study.running()
    study.announce_end(last)
    cluster.wait_for(lambda: study.status()["kept"]["submitted"] == 1, "one job in the place of the last")


def test_a_job_that_cannot_submit_says_so(cluster: Cluster, tmp_path: Path) -> None:
    hide = tmp_path / "bin"
    hide.mkdir()
    (hide / "sbatch").write_text("#!/bin/sh\necho 'sbatch: error: Access denied from a compute node' >&2\nexit 1\n")
    os.chmod(hide / "sbatch", 0o755)
    slurm = {"bash": [f"export PATH={hide}:$PATH"]}
    study = KeptStudy(tmp_path, cluster, 1, slurm, variables={"STILL": 1}, n_trials=4)
    study.submit()
    cluster.wait_for(study.stands_still)
    (job,) = study.running()
    study.announce_end(job)
    cluster.wait_for_state(job.id, "COMPLETED")  # its own end is not spoiled
    assert "Access denied from a compute node" in study.logs()
    assert "sbatch did not take the jobs" in study.status()["kept"]["failure"]
    assert "could not submit: job " in study.verb("status")


@pytest.mark.slow
def test_agents_submit_no_more_than_they_may(cluster: Cluster, tmp_path: Path) -> None:
    study = KeptStudy(tmp_path, cluster, 1, {"max_submissions": 0}, variables={"STILL": 1}, n_trials=4)
    study.submit()
    cluster.wait_for(study.stands_still)
    (job,) = study.running()
    study.announce_end(job)
    cluster.wait_for_state(job.id, "COMPLETED")
    assert "max_submissions allows no more" in study.verb("status")
    study.verb("change", "slurm:max_submissions=5")
    study.submit("optuna:reload=1")
    study.wait_for_end()
    study.assert_resumed()
