"""What goes to sbatch and what comes back, without a cluster."""

from __future__ import annotations

import pytest
from submitit.core.utils import FailedSubmissionError

from aimlhpo.launch.slurm.sbatch import parse_sbatch_answer, split_submission, variables_to_unset
from tests.launch.slurm.requests import make_submission


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
    made = split_submission(make_submission(jobs=jobs, first=first), limit)
    assert [(part.first, part.jobs) for part in made] == expected


def test_arrays_with_the_same_indices_have_logs_of_their_own() -> None:
    options = (("output", "/s/o_%3a.log"), ("error", "/s/e-%j"), ("time", "1"))
    (part, _) = split_submission(make_submission(jobs=2, options=options, log="/s/o_%3a.log"), 1)
    assert part.options == (("output", "/s/o_%A_%3a.log"), ("error", "/s/e-%j"), ("time", "1"))
    assert part.log == "/s/o_%A_%3a.log"


@pytest.mark.parametrize(
    ("answer", "expected"),
    [("123\n", ("123", None)), ("123;bigcluster\n", ("123", "bigcluster")), ("Welcome!\n123\n", ("123", None))],
)
def test_the_job_id_in_what_sbatch_says(answer: str, expected: tuple[str, str | None]) -> None:
    assert parse_sbatch_answer(answer) == expected


@pytest.mark.parametrize("answer", ["", "\n", "sbatch: queued", ";cluster"])
def test_never_a_blank_job_id(answer: str) -> None:
    with pytest.raises(FailedSubmissionError, match="no job id"):
        parse_sbatch_answer(answer)


def test_neither_another_jobs_variables_nor_a_profiles_reach_sbatch() -> None:
    submission = make_submission(options=(("time", "1:00"), ("mem", "4G"), ("job-name", "x")))
    inherited = [
        "SLURM_JOB_ID", "SLURM_RESTART_COUNT", "SLURM_ARRAY_TASK_ID", "SLURM_NTASKS", "CUDA_VISIBLE_DEVICES",
        "SBATCH_TIMELIMIT", "SBATCH_MEM_PER_CPU", "SBATCH_JOB_NAME", "SBATCH_ARRAY_INX", "SBATCH_WAIT",
    ]  # fmt: skip
    wanted = ["PATH", "SLURM_CONF", "SLURM_CLUSTERS", "SBATCH_ACCOUNT", "SBATCH_PARTITION", "PGPASSWORD"]
    assert variables_to_unset(submission, inherited + wanted) == sorted(inherited)
