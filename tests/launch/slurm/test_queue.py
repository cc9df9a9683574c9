"""The records of submitted arrays, and what squeue's answer says of a job."""

from __future__ import annotations

from pathlib import Path

import pytest

from aimlhpo.config.paths import StudyPaths
from aimlhpo.launch.slurm.queue import (
    JobArray,
    QueuedJob,
    failures_of,
    is_job_alive,
    note_failure,
    recorded_arrays,
    write_array,
    write_array_if_missing,
)


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
    write_array_if_missing(paths, JobArray("12", 3))
    write_array(paths, JobArray("12", 3, script="x.sh", submitted=2.0))
    write_array_if_missing(paths, JobArray("12", 3))
    write_array(paths, JobArray("9", 1, submitted=1.0))
    (paths.jobs / "torn.json").write_text('{"array_id": "1')
    assert [array.label for array in recorded_arrays(paths)] == ["9_0", "12_[0-2]"]
    assert recorded_arrays(paths)[1].script == "x.sh"
    assert (paths.jobs / "12.json").stat().st_mode & 0o077 == 0


def test_failures_of_the_newest_jobs_of_each_section_are_told(tmp_path: Path) -> None:
    paths = StudyPaths(tmp_path, "s")
    paths.create()
    for submitted, section in enumerate([None, "a100", "v100", "a100"]):
        write_array(paths, JobArray(f"{submitted}", 1, submitted=float(submitted), section=section))
        note_failure(paths, f"{submitted}_0", f"cause {submitted}")
    assert failures_of(paths) == {"2_0": "cause 2", "3_0": "cause 3"}
    write_array(paths, JobArray("9", 1, submitted=9.0))
    note_failure(paths, "9_0", "cause 9")
    assert failures_of(paths) == {"9_0": "cause 9"}  # again one section alone
