"""The record of each job array that was submitted for a study: one JSON file per array.
What SLURM has of a study's jobs, from one squeue call. Accounting may be off: sacct is never asked.
SLURM's word on who is alive, for the leases: cheap to ask often, and never a cause of waiting for long.
Ending a study's own jobs, and no others.
"""

from __future__ import annotations

import json
import os
import re
import time
from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path, PurePath

from aimlhpo.errors import SubmissionError
from aimlhpo.launch.slurm.program import PROGRAM_TIMEOUT, on_cluster, run_program, seconds_of_time_limit
from aimlhpo.ledger.leases import Holder
from aimlhpo.paths import StudyPaths, replace_file


@dataclass(frozen=True)
class JobArray:
    """One submitted array: elements `first` to `first + count - 1`; `submitted` is in seconds since 1970.

    `stopped`: `aimlhpo stop` has cancelled it.
    """

    array_id: str
    count: int
    first: int = 0
    cluster: str | None = None
    script: str | None = None
    log: str | None = None
    python: str | None = None
    submitted: float = field(default_factory=time.time)
    stopped: bool = False

    @property
    def label(self) -> str:
        """As SLURM writes it: `1234_[0-19]`."""
        last = self.first + self.count - 1
        elements = f"{self.first}" if self.count == 1 else f"[{self.first}-{last}]"
        return f"{self.array_id}_{elements}"


def write_array(paths: StudyPaths, array: JobArray) -> None:
    """Keep the record of an array. Raises OSError."""
    replace_file(_path(paths, array.array_id), _text(array), mode=0o600)


def adopt_array(paths: StudyPaths, array_id: str, count: int = 1, first: int = 0) -> None:
    """Record an array from within one of its jobs, where the submitting command died before it could.

    Raises OSError.
    """
    with suppress(FileExistsError), open(_path(paths, array_id), "x", encoding="utf-8", opener=_private) as file:
        file.write(_text(JobArray(array_id, count, first)))


def note_stopped(paths: StudyPaths, array_ids: Collection[str], stopped: bool = True) -> None:
    """Say in the records of these arrays whether their user has stopped them. Raises OSError."""
    for array in recorded_arrays(paths):
        if array.array_id in array_ids:
            write_array(paths, replace(array, stopped=stopped))


def is_stopped(paths: StudyPaths, array_id: str) -> bool:
    """Whether the array's user has stopped it."""
    array = _read(_path(paths, array_id))
    return array is not None and array.stopped


def recorded_arrays(paths: StudyPaths) -> list[JobArray]:
    """All arrays of the study, oldest first; files that are no records are left out."""
    found = (_read(path) for path in paths.jobs.glob("*.json"))
    return sorted((array for array in found if array), key=lambda array: (array.submitted, array.array_id))


def _text(array: JobArray) -> str:
    return json.dumps(asdict(array), indent=2) + "\n"


def _private(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)


def _path(paths: StudyPaths, array_id: str) -> Path:
    return paths.jobs / f"{array_id}.json"


def _read(path: Path) -> JobArray | None:
    try:
        return JobArray(**json.loads(path.read_text()))
    except (OSError, ValueError, TypeError):  # not one of ours
        return None


# Columns of fixed width: unlike separators, every SLURM has them. Those that users can fill come last.
_COLUMNS = {
    "ArrayJobID": 24, "ArrayTaskID": 24, "JobID": 24, "State": 24, "RestartCnt": 12,
    "TimeLeft": 24, "NodeList": 128, "Reason": 128, "Command": 4096,
}  # fmt: skip
_FORMAT = ",".join(f"{name}:{width}" for name, width in _COLUMNS.items())
_UNKNOWN_ID = re.compile(r"invalid job id", re.IGNORECASE)
ENDED_STATES = frozenset({
    "BOOT_FAIL", "CANCELLED", "COMPLETED", "DEADLINE", "FAILED", "NODE_FAIL", "OUT_OF_MEMORY", "PREEMPTED",
    "REVOKED", "TIMEOUT",
})  # fmt: skip
_HELD = frozenset({"RUNNING", "SUSPENDED", "SIGNALING", "STOPPED"})


@dataclass(frozen=True)
class QueuedJob:
    """One job in SLURM's queue; `time_left` is in seconds."""

    array_id: str
    index: int | None
    raw_id: str
    state: str
    restarts: int
    time_left: int | None
    node: str | None
    reason: str | None
    script: str | None = None

    @property
    def job_id(self) -> str:
        """As users and SLURM's own output write it: `1234_5`."""
        return self.array_id if self.index is None else f"{self.array_id}_{self.index}"

    @property
    def ended(self) -> bool:
        return self.state in ENDED_STATES

    @property
    def running(self) -> bool:
        return self.state in _HELD

    @property
    def pending(self) -> bool:
        return not self.ended and not self.running and self.state != "COMPLETING"


def jobs_of_study(paths: StudyPaths, timeout: float = PROGRAM_TIMEOUT) -> list[QueuedJob] | None:
    """The jobs that SLURM still knows, those that ended lately included; None: SLURM does not answer."""
    recorded = recorded_arrays(paths)
    found: list[QueuedJob] = []
    for cluster in {array.cluster for array in recorded}:
        mine = {array.array_id: array for array in recorded if array.cluster == cluster}
        asked = query_jobs(mine, cluster, timeout)
        if asked is None:
            return None
        found += (job for job in asked if _is_of(mine.get(job.array_id), job))
    return sorted(found, key=lambda job: (int(job.array_id), job.index or 0))


def query_jobs(
    job_ids: Iterable[str], cluster: str | None = None, timeout: float = PROGRAM_TIMEOUT
) -> list[QueuedJob] | None:
    """What squeue says of these jobs or arrays; an empty list: they are gone; None: SLURM does not answer."""
    wanted = f"--jobs={','.join(job_ids)}"
    shown = ("--noheader", "--array", "--states=all", f"--Format={_FORMAT}")
    answer = run_program("squeue", *on_cluster(cluster), *shown, wanted, timeout=timeout)
    if not answer.ok:
        return [] if answer.code is not None and _UNKNOWN_ID.search(answer.words) else None
    return list(_queue_read(answer.out))


def is_job_alive(known: Iterable[QueuedJob], job_id: str, restarts: int) -> bool | None:
    """Whether the job runs, in the same start of it, from what squeue has said; None: it is just ending."""
    job = next((job for job in known if job_id in (job.job_id, job.raw_id)), None)
    if job is None or job.ended:
        return False
    if job.state == "COMPLETING":  # its processes may still be there, whatever its next start is
        return None
    return job.restarts == restarts if job.running else False


def _is_of(array: JobArray | None, job: QueuedJob) -> bool:
    """Whether the job is the study's: ids are used again some day, but the script's name is unique."""
    if array is None:
        return False
    return not (array.script and job.script) or PurePath(job.script).name == array.script


def _queue_read(text: str) -> Iterator[QueuedJob]:
    for line in text.splitlines():
        row, start = {}, 0
        for name, width in _COLUMNS.items():
            row[name], start = line[start : start + width].strip(), start + width
        if row["JobID"].isdigit():
            yield _job(row)


def _job(row: dict[str, str]) -> QueuedJob:
    index = row["ArrayTaskID"]
    array = row["ArrayJobID"]
    return QueuedJob(
        array_id=array if array.isdigit() else row["JobID"],
        index=int(index) if index.isdigit() else None,
        raw_id=row["JobID"],
        state=row["State"],
        restarts=int(row["RestartCnt"]) if row["RestartCnt"].isdigit() else 0,
        time_left=seconds_of_time_limit(row["TimeLeft"]),
        node=row["NodeList"] or None,
        reason=None if row["Reason"] in ("", "None") else row["Reason"],
        script=row["Command"] or None,
    )


_FRESH = 10.0  # seconds that an answer serves
_SILENT = 60.0  # seconds until SLURM is asked again after it did not answer
_TIMEOUT = 10.0  # seconds


class SlurmJobStates:
    """What SLURM says of an agent's job: runs (True), is gone (False), or nothing (None).

    One squeue call answers for all agents of the study.
    """

    def __init__(self, paths: StudyPaths) -> None:
        self._paths = paths
        self._jobs: list[QueuedJob] | None = None
        self._arrays: frozenset[str] = frozenset()
        self._asked = -float("inf")

    def __call__(self, holder: Holder) -> bool | None:
        if holder.job is None:
            return None
        known = self.jobs()
        if known is None or holder.job.partition("_")[0] not in self._arrays:
            return None
        return is_job_alive(known, holder.job, holder.restarts)

    def jobs(self) -> list[QueuedJob] | None:
        """The study's jobs, as SLURM has shown them lately; None: it does not answer."""
        if time.monotonic() - self._asked > (_SILENT if self._jobs is None else _FRESH):
            self._arrays = frozenset(array.array_id for array in recorded_arrays(self._paths))
            self._jobs = jobs_of_study(self._paths, timeout=_TIMEOUT)
            self._asked = time.monotonic()
        return self._jobs


@dataclass(frozen=True)
class LivingJobs:
    """The jobs of a study that have not ended."""

    running: tuple[QueuedJob, ...]
    waiting: tuple[QueuedJob, ...]

    def __bool__(self) -> bool:
        return bool(self.running or self.waiting)


def living_jobs(paths: StudyPaths) -> LivingJobs:
    """The jobs that can be stopped. Raises SubmissionError where SLURM does not answer."""
    jobs = jobs_of_study(paths)
    if jobs is None:
        raise SubmissionError(
            "SLURM does not answer, so its jobs cannot be listed or stopped now; try again when it is back."
        )
    here = [job for job in jobs if not job.ended]
    return LivingJobs(
        tuple(job for job in here if not job.pending),
        tuple(job for job in here if job.pending),
    )


def cancel_jobs(paths: StudyPaths) -> LivingJobs:
    """Cancel all jobs of the study; agents that run are told first and give their trials back.

    Returns the jobs that were there. Raises SubmissionError with SLURM's own words.
    """
    found = living_jobs(paths)
    clusters = {array.array_id: array.cluster for array in recorded_arrays(paths)}
    wanted: defaultdict[str | None, set[str]] = defaultdict(set)
    for job in (*found.running, *found.waiting):
        wanted[clusters.get(job.array_id)].add(job.array_id)
    for cluster, ids in wanted.items():
        note_stopped(paths, ids)  # agents read it when SLURM's signal comes, which says nothing
        answer = run_program("scancel", *on_cluster(cluster), *sorted(ids))
        if not answer.ok:
            note_stopped(paths, ids, stopped=False)
            raise SubmissionError(f"scancel did not stop the jobs {', '.join(sorted(ids))}: {answer.words}")
    return found


def job_states_of(paths: StudyPaths) -> SlurmJobStates | None:
    """What SLURM says of the study's jobs; None where none were submitted."""
    return SlurmJobStates(paths) if paths.jobs.is_dir() and any(paths.jobs.glob("*.json")) else None
