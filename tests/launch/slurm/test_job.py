"""What a job knows of itself."""

from __future__ import annotations

import os
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from aimlhpo.agent.agent import Ending
from aimlhpo.errors import StudyFailed
from aimlhpo.launch.slurm.job import _go_on, job_end_time, read_job_environment, slots_of_job
from tests.project import Project


def test_no_job_outside_slurm() -> None:
    assert read_job_environment({}) is None


def test_what_a_job_knows_of_itself() -> None:
    job = read_job_environment({
        "SLURM_JOB_ID": "105", "SLURM_ARRAY_JOB_ID": "100", "SLURM_ARRAY_TASK_ID": "4", "SLURM_ARRAY_TASK_COUNT": "8",
        "SLURM_RESTART_COUNT": "2", "SLURMD_NODENAME": "gpu3", "SLURM_CPUS_ON_NODE": "8", "SLURM_JOB_NUM_NODES": "1",
        "CUDA_VISIBLE_DEVICES": "GPU-8932f937,MIG-1b2", "SLURM_JOB_GPUS": "2,3",
    })  # fmt: skip
    assert job is not None
    assert (job.job_id, job.raw_id, job.array_id, job.index, job.restarts) == ("100_4", "105", "100", 4, 2)
    assert (job.node, job.nodes, job.cpus, job.array_count) == ("gpu3", 1, 8, 8)
    assert (job.gpus, job.gpu_source) == (("GPU-8932f937", "MIG-1b2"), "CUDA_VISIBLE_DEVICES")


@pytest.mark.parametrize(
    ("told", "gpus"),
    [
        ({}, None),
        ({"CUDA_VISIBLE_DEVICES": ""}, ()),
        ({"CUDA_VISIBLE_DEVICES": "NoDevFiles"}, ()),
        ({"CUDA_VISIBLE_DEVICES": "0,-1,1"}, ("0",)),
        ({"SLURM_JOB_GPUS": "0,1"}, ("0", "1")),
    ],
)
def test_the_gpus_of_a_job(told: dict[str, str], gpus: tuple[str, ...] | None) -> None:
    job = read_job_environment({"SLURM_JOB_ID": "1", **told})
    assert job is not None
    assert job.gpus == gpus


def test_job_whose_gpus_are_measured_begins_with_one_trial_on_each(tmp_path: Path) -> None:
    slurm = {"trials_per_gpu": "auto", "max_trials_per_gpu": 3, "kernel": "true"}
    told = {"SLURM_JOB_ID": "1", "SLURMD_NODENAME": "gpu3", "SLURM_CPUS_ON_NODE": "12", "CUDA_VISIBLE_DEVICES": "4,5"}
    job = read_job_environment(told)
    assert job is not None
    slots = slots_of_job(Project(tmp_path, slurm=slurm, gpu=True).config, job)
    assert [slot.gpus for slot in slots] == [("4",), ("5",)] * 3
    assert [slot.on_demand for slot in slots] == [False] * 2 + [True] * 4
    assert {(slot.threads, slot.gpu_share) for slot in slots} == {(2, 1.0)}


def test_the_end_time_where_slurm_gives_it() -> None:
    told = {"SLURM_JOB_ID": "1", "SLURM_JOB_END_TIME": "1800000000"}
    job = read_job_environment(told)
    assert job is not None
    assert job_end_time(job, told) == 1800000000.0


@pytest.mark.parametrize("cause", ["lost node gpu1", "walltime"])
def test_a_lost_node_costs_no_job_that_has_come_to_nothing_yet(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cause: str
) -> None:
    """Where its time was too short for anything, another run of a job would come to nothing, too."""
    asked = tmp_path / "asked"
    for name, script in (("squeue", "exit 1"), ("scontrol", f'echo "$@" >> {asked}')):
        (tmp_path / name).write_text(f"#!/bin/sh\n{script}\n")
        (tmp_path / name).chmod(0o700)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    job = read_job_environment({"SLURM_JOB_ID": "7"})
    assert job is not None
    config: Any = SimpleNamespace(
        slurm=SimpleNamespace(keep=False, requeue=True, max_requeues=None),
        optuna=SimpleNamespace(n_trials=4),
        paths=SimpleNamespace(checkpoints=tmp_path / "checkpoints", save_path=tmp_path),
    )
    snapshot: Any = SimpleNamespace(counts=SimpleNamespace(finished=0), ended=None)
    ending = Ending(snapshot, config, trials_run=0, cause=cause)
    if cause == "walltime":
        with pytest.raises(StudyFailed, match="another run of it would get no further"):
            _go_on(job, ending, time.time())
        assert not asked.exists()
    else:
        assert _go_on(job, ending, time.time()) == 0
        assert asked.read_text() == "requeue 7\n"
