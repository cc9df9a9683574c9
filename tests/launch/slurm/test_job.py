"""What a job knows of itself."""

from __future__ import annotations

import pytest

from aimlhpo.launch.slurm.job import job_end_time, read_job_environment


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


def test_the_end_time_where_slurm_gives_it() -> None:
    told = {"SLURM_JOB_ID": "1", "SLURM_JOB_END_TIME": "1800000000"}
    job = read_job_environment(told)
    assert job is not None
    assert job_end_time(job, told) == 1800000000.0
