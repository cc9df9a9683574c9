"""The small parts of the SLURM launcher that need no cluster."""

from __future__ import annotations

from pathlib import Path

import pytest
from submitit.core.utils import FailedSubmissionError

from aimlhpo.launch.slurm import describe, options, program, queue
from aimlhpo.launch.slurm import job as slurm_job
from aimlhpo.launch.slurm.queue import QueuedJob, is_job_alive
from aimlhpo.launch.slurm.sbatch import parse, parts, unwanted
from aimlhpo.paths import StudyPaths
from tests.launch.slurm.requests import make_submission


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("90", 5400), ("30:00", 1800), ("12:00:00", 43200), ("2-12", 216000), ("1-00:30", 88200),
        ("1-00:00:01", 86401), ("UNLIMITED", None), ("INVALID", None), ("", None),
    ],
)  # fmt: skip
def test_times_as_slurm_writes_them(text: str, seconds: int | None) -> None:
    assert program.seconds_of_time_limit(text) == seconds


def test_the_file_of_one_element() -> None:
    assert options.log_file("/s/job-%A_%3a.log", "12", 7) == "/s/job-12_007.log"
    assert options.log_file("/s/100%%_%a", "12", 7) == "/s/100%_7"
    assert options.log_file("/s/%j.log", "12", 7) is None


@pytest.mark.parametrize(
    ("jobs", "first", "limit", "expected"),
    [
        (100, 0, 1001, [(0, 100)]),
        (25, 0, 10, [(0, 10), (0, 10), (0, 5)]),
        (20, 0, 10, [(0, 10), (0, 10)]),
        (5, 8, 1001, [(8, 5)]),
        (5, 8, 10, [(0, 5)]),
        (1, 0, 1, [(0, 1)]),
    ],
)
def test_arrays_stay_within_what_the_cluster_allows(
    jobs: int, first: int, limit: int, expected: list[tuple[int, int]]
) -> None:
    made = parts(make_submission(jobs=jobs, first=first), limit)
    assert [(part.first, part.jobs) for part in made] == expected


def test_arrays_with_the_same_indices_have_logs_of_their_own() -> None:
    options = (("output", "/s/o_%3a.log"), ("error", "/s/e-%j"), ("time", "1"))
    (part, _) = parts(make_submission(jobs=2, options=options, log="/s/o_%3a.log"), 1)
    assert part.options == (("output", "/s/o_%A_%3a.log"), ("error", "/s/e-%j"), ("time", "1"))
    assert part.log == "/s/o_%A_%3a.log"


@pytest.mark.parametrize(
    ("answer", "expected"),
    [("123\n", ("123", None)), ("123;bigcluster\n", ("123", "bigcluster")), ("Welcome!\n123\n", ("123", None))],
)
def test_the_job_id_in_what_sbatch_says(answer: str, expected: tuple[str, str | None]) -> None:
    assert parse(answer) == expected


@pytest.mark.parametrize("answer", ["", "\n", "sbatch: queued", ";cluster"])
def test_never_a_blank_job_id(answer: str) -> None:
    with pytest.raises(FailedSubmissionError, match="no job id"):
        parse(answer)


def test_neither_another_jobs_variables_nor_a_profiles_reach_sbatch() -> None:
    submission = make_submission(options=(("time", "1:00"), ("mem", "4G"), ("job-name", "x")))
    inherited = [
        "SLURM_JOB_ID", "SLURM_RESTART_COUNT", "SLURM_ARRAY_TASK_ID", "SLURM_NTASKS", "CUDA_VISIBLE_DEVICES",
        "SBATCH_TIMELIMIT", "SBATCH_MEM_PER_CPU", "SBATCH_JOB_NAME", "SBATCH_ARRAY_INX", "SBATCH_WAIT",
    ]  # fmt: skip
    wanted = ["PATH", "SLURM_CONF", "SLURM_CLUSTERS", "SBATCH_ACCOUNT", "SBATCH_PARTITION", "PGPASSWORD"]
    assert unwanted(submission, inherited + wanted) == sorted(inherited)


@pytest.mark.parametrize(
    ("options", "gpus"),
    [
        ({"gres": "gpu:v100:2"}, 2),
        ({"gres": "gpu"}, 1),
        ({"gres": "gpu:a100"}, 1),
        ({"gres": "gpu:3(S:0)"}, 3),
        ({"gres": "shard:2,gpu:1"}, 1),
        ({"gres": "tmpfs:10G"}, None),
        ({"gpus": "4"}, 4),
        ({"gpus-per-node": "a100:2"}, 2),
        ({"gpus-per-task": "1", "ntasks": "4"}, 4),
        ({}, None),
    ],
)
def test_how_many_gpus_a_job_asks_for(options: dict[str, str], gpus: int | None) -> None:
    assert describe.gpus_per_job(make_submission(options=tuple(options.items()))) == gpus


def test_no_job_outside_slurm() -> None:
    assert slurm_job.read_job_environment({}) is None


def test_what_a_job_knows_of_itself() -> None:
    job = slurm_job.read_job_environment({
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
    job = slurm_job.read_job_environment({"SLURM_JOB_ID": "1", **told})
    assert job is not None
    assert job.gpus == gpus


def test_the_end_time_where_slurm_gives_it() -> None:
    told = {"SLURM_JOB_ID": "1", "SLURM_JOB_END_TIME": "1800000000"}
    job = slurm_job.read_job_environment(told)
    assert job is not None
    assert slurm_job.end_time(job, told) == 1800000000.0


def _job(state: str, restarts: int = 0) -> QueuedJob:
    return QueuedJob("100", 4, "105", state, restarts, None, None, None)


@pytest.mark.parametrize(
    ("jobs", "expected"),
    [
        ([], False),
        ([_job("RUNNING", 1)], True),
        ([_job("RUNNING", 2)], False),
        ([_job("PENDING", 2)], False),
        ([_job("CANCELLED", 1)], False),
        ([_job("COMPLETING", 2)], None),
        ([_job("SUSPENDED", 1)], True),
    ],
)
def test_who_is_alive(jobs: list[QueuedJob], expected: bool | None) -> None:
    assert is_job_alive(jobs, "100_4", 1) is expected
    assert is_job_alive(jobs, "105", 1) is expected


def test_records_of_arrays(tmp_path: Path) -> None:
    paths = StudyPaths(tmp_path, "s")
    paths.create()
    queue.adopt_array(paths, "12", count=3)
    queue.write_array(paths, queue.JobArray("12", 3, script="x.sh", submitted=2.0))
    queue.adopt_array(paths, "12", count=3)
    queue.write_array(paths, queue.JobArray("9", 1, submitted=1.0))
    (paths.jobs / "torn.json").write_text('{"array_id": "1')
    assert [array.label for array in queue.recorded_arrays(paths)] == ["9_0", "12_[0-2]"]
    assert queue.recorded_arrays(paths)[1].script == "x.sh"
    assert (paths.jobs / "12.json").stat().st_mode & 0o077 == 0
