"""The study's jobs: which were submitted, how they are in SLURM's queue, and cancelling them.

Each submitted array has a record in save_path, one JSON file, so that any command finds the study's own jobs and no
others. How they are is known from squeue alone; sacct is never asked, because clusters may run without accounting.
"""

from __future__ import annotations

import json
import os
import re
import time
from collections import defaultdict
from collections.abc import Collection, Iterable
from contextlib import suppress
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path, PurePath
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import quote

from aimlhpo.config.paths import StudyPaths, replace_file
from aimlhpo.errors import SubmissionError
from aimlhpo.launch.base import LiveJobs
from aimlhpo.launch.slurm.plan import log_of_job
from aimlhpo.launch.slurm.program import PROGRAM_TIMEOUT, cluster_option, run_program, seconds_of_time_limit
from aimlhpo.ledger.leases import Holder
from aimlhpo.results.status import ENDED_JOB_STATES, RUNNING_JOB_STATES, JobStatus
from aimlhpo.storage.locks import locked

if TYPE_CHECKING:
    from aimlhpo.config.schema import Config

# Columns of fixed width: unlike separators, every SLURM has them. Those that users can fill come last.
_COLUMNS = {
    "ArrayJobID": 24, "ArrayTaskID": 24, "JobID": 24, "State": 24, "RestartCnt": 12,
    "TimeLeft": 24, "NodeList": 128, "Reason": 128, "Command": 4096,
}  # fmt: skip
_FORMAT = ",".join(f"{name}:{width}" for name, width in _COLUMNS.items())
_UNKNOWN_ID = re.compile(r"invalid job id", re.IGNORECASE)
FAILURE_SUFFIX = ".failed"
_BEGUN_SUFFIX = ".begun"

_ANSWER_SERVES = 10.0  # seconds for which an answer about the states of jobs is used again
_RETRY_AFTER = 60.0  # seconds until SLURM is asked again after it did not answer
_STATES_TIMEOUT = 10.0  # seconds


@dataclass(frozen=True)
class JobArray:
    """One submitted array: elements `first` to `first + count - 1`; `submitted` is in seconds since 1970.

    `stopped`: `aimlhpo stop` has cancelled it. `section`: that of `slurm` which it was submitted for, of several.
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
    section: str | None = None

    @property
    def label(self) -> str:
        """As SLURM writes it: `1234_[0-19]`."""
        last = self.first + self.count - 1
        elements = f"{self.first}" if self.count == 1 else f"[{self.first}-{last}]"
        return f"{self.array_id}_{elements}"

    def as_json(self) -> str:
        return json.dumps(asdict(self), indent=2) + "\n"


def write_array(paths: StudyPaths, array: JobArray) -> None:
    """Write or replace the record of an array. Raises OSError."""
    replace_file(_record(paths, array.array_id), array.as_json(), mode=0o600)


def write_array_if_missing(paths: StudyPaths, array: JobArray) -> None:
    """Record an array from within one of its jobs, where the submitting command died before it could.

    Raises OSError.
    """

    def private(path: str, flags: int) -> int:
        return os.open(path, flags, 0o600)

    with suppress(FileExistsError), open(_record(paths, array.array_id), "x", encoding="utf-8", opener=private) as file:
        file.write(array.as_json())


def recorded_arrays(paths: StudyPaths) -> list[JobArray]:
    """All arrays of the study, oldest first; files that are no records are left out."""
    found = (_read_record(path) for path in paths.jobs.glob("*.json"))
    return sorted((array for array in found if array), key=lambda array: (array.submitted, array.array_id))


def note_failure(paths: StudyPaths, job_id: str, cause: str | None) -> None:
    """Keep why a job has failed, for as long as no other is submitted; None: it goes on. Raises OSError."""
    path = paths.jobs / f"{job_id}{FAILURE_SUFFIX}"
    if cause is None:
        path.unlink(missing_ok=True)
    else:
        replace_file(path, f"{cause}\n", mode=0o600)


def failures_of(paths: StudyPaths) -> dict[str, str]:
    """Why jobs of the array that was submitted last, for each section, have failed, by job."""
    arrays = recorded_arrays(paths)  # the oldest first; what was submitted before there were several sections is over
    newest = {each.section: each.array_id for each in arrays if bool(each.section) == bool(arrays[-1].section)}
    files = (file for array_id in newest.values() for file in paths.jobs.glob(f"{array_id}_*{FAILURE_SUFFIX}"))
    return {file.name.removesuffix(FAILURE_SUFFIX): file.read_text(errors="replace").strip() for file in sorted(files)}


def note_begun(paths: StudyPaths, job_id: str) -> None:
    """Keep that the job's agent has begun. Raises OSError."""
    (paths.jobs / f"{job_id}{_BEGUN_SUFFIX}").touch(mode=0o600)


def has_begun(paths: StudyPaths, job_id: str) -> bool:
    """Whether the job's agent has ever begun."""
    return (paths.jobs / f"{job_id}{_BEGUN_SUFFIX}").exists()


@dataclass(frozen=True)
class KeptJobs:
    """What is known of the jobs that agents submit themselves (`slurm: keep`), for one section.

    One file; changed under a lock, which all sections have together.

    Attributes:
        since: when the user last submitted jobs, in seconds since the epoch; 0 where that is not known.
        submitted: how many jobs agents have submitted, since the study was made.
        fewer: how many jobs fewer than `slurm: jobs` are kept, because the user took so many away.
        taken: the jobs that are counted in `fewer`.
        leaving: the jobs, each with its number of restarts, whose agents have ended and looked for missing jobs; they
            may still be in the queue.
        failure: why an agent could not submit when one last tried to; None where it could.
    """

    since: float = 0.0
    submitted: int = 0
    fewer: int = 0
    taken: tuple[str, ...] = ()
    leaving: tuple[str, ...] = ()
    failure: str | None = None

    def without(self, job_ids: Iterable[str]) -> KeptJobs:
        """The same, with jobs taken away by the user; each is counted once."""
        new = [job for job in dict.fromkeys(job_ids) if job not in self.taken]
        return replace(self, fewer=self.fewer + len(new), taken=(*self.taken, *new))


def read_kept_jobs(config: Config) -> KeptJobs:
    """What is known now; nothing where no file is there."""
    try:
        known: dict[str, Any] = json.loads(_kept_jobs(config).read_text())
    except FileNotFoundError:
        return KeptJobs()
    return KeptJobs(**{**known, "taken": tuple(known["taken"]), "leaving": tuple(known["leaving"])})


def write_kept_jobs(config: Config, kept: KeptJobs) -> None:
    """The caller holds the lock. Raises OSError."""
    replace_file(_kept_jobs(config), json.dumps(asdict(kept), indent=2) + "\n", 0o600)


def _kept_jobs(config: Config) -> Path:
    file = config.paths.kept_jobs
    return file if config.section is None else file.with_name(f"{file.stem}-{quote(config.section, safe='')}.json")


def is_stopped(paths: StudyPaths, array_id: str) -> bool:
    """Whether the array's user has stopped it."""
    array = _read_record(_record(paths, array_id))
    return array is not None and array.stopped


def _record(paths: StudyPaths, array_id: str) -> Path:
    return paths.jobs / f"{array_id}.json"


def _read_record(path: Path) -> JobArray | None:
    try:
        return JobArray(**json.loads(path.read_text()))
    except (OSError, ValueError, TypeError):  # not one of ours
        return None


@dataclass(frozen=True)
class QueuedJob:
    """One job in SLURM's queue; `time_left` is in seconds, `restarts` counts how often it was queued again."""

    array_id: str
    index: int | None
    raw_id: str
    state: str
    restarts: int
    time_left: int | None
    node: str | None
    reason: str | None
    script: str | None = None
    section: str | None = None

    @property
    def job_id(self) -> str:
        """As users and SLURM's own output write it: `1234_5`."""
        return self.array_id if self.index is None else f"{self.array_id}_{self.index}"

    @property
    def ended(self) -> bool:
        return self.state in ENDED_JOB_STATES

    @property
    def running(self) -> bool:
        return self.state in RUNNING_JOB_STATES

    @property
    def pending(self) -> bool:
        return not self.ended and not self.running and self.state != "COMPLETING"


_OfSection = TypeVar("_OfSection", JobArray, QueuedJob)


def query_jobs(
    job_ids: Iterable[str], cluster: str | None = None, timeout: float = PROGRAM_TIMEOUT
) -> list[QueuedJob] | None:
    """What squeue says of these jobs or arrays; an empty list: they are gone; None: SLURM does not answer."""
    wanted = f"--jobs={','.join(job_ids)}"
    shown = ("--noheader", "--array", "--states=all", f"--Format={_FORMAT}")
    answer = run_program("squeue", *cluster_option(cluster), *shown, wanted, timeout=timeout)
    if not answer.ok:
        return [] if answer.code is not None and _UNKNOWN_ID.search(answer.message) else None
    jobs = []
    for line in answer.out.splitlines():
        row, start = {}, 0
        for name, width in _COLUMNS.items():
            row[name], start = line[start : start + width].strip(), start + width
        if not row["JobID"].isdigit():
            continue
        job = QueuedJob(
            array_id=row["ArrayJobID"] if row["ArrayJobID"].isdigit() else row["JobID"],
            index=int(row["ArrayTaskID"]) if row["ArrayTaskID"].isdigit() else None,
            raw_id=row["JobID"],
            state=row["State"],
            restarts=int(row["RestartCnt"]) if row["RestartCnt"].isdigit() else 0,
            time_left=seconds_of_time_limit(row["TimeLeft"]),
            node=row["NodeList"] or None,
            reason=None if row["Reason"] in ("", "None") else row["Reason"],
            script=row["Command"] or None,
        )
        jobs.append(job)
    return jobs


def query_jobs_of_study(paths: StudyPaths, timeout: float = PROGRAM_TIMEOUT) -> list[QueuedJob] | None:
    """The jobs that SLURM still knows, those that ended lately included; None: SLURM does not answer."""
    recorded = recorded_arrays(paths)
    found: list[QueuedJob] = []
    sections = {array.array_id: array.section for array in recorded}
    for cluster in {array.cluster for array in recorded}:
        scripts = {array.array_id: array.script for array in recorded if array.cluster == cluster}
        answer = query_jobs(scripts, cluster, timeout)
        if answer is None:
            return None
        for job in answer:
            # Ids are used again some day, but the name of the study's script is unique.
            script = scripts.get(job.array_id)
            if job.array_id in scripts and (not script or not job.script or PurePath(job.script).name == script):
                found.append(replace(job, section=sections[job.array_id]))
    return sorted(found, key=lambda job: (int(job.array_id), job.index or 0))


def of_section(config: Config, found: Iterable[_OfSection]) -> list[_OfSection]:
    """The jobs or arrays of the section that the configuration is about; all, where it is about none of several.

    What was submitted before there were several belongs to the first.
    """
    wanted, first = config.section, config.sections[0].name if config.sections else None
    return [each for each in found if wanted is None or (first if each.section is None else each.section) == wanted]


def is_job_alive(known: Iterable[QueuedJob], job_id: str, restarts: int) -> bool | None:
    """Whether the job runs, and has not been queued again since, from what squeue has said; None: it is just ending."""
    job = next((job for job in known if job_id in (job.job_id, job.raw_id)), None)
    if job is None or job.ended:
        return False
    if job.state == "COMPLETING":  # its processes may still be there, even if it has been queued again
        return None
    return job.restarts == restarts if job.running else False


class SlurmJobStates:
    """Says how jobs are: to the leases whether an agent's job still runs, to the status how all of them are.

    Calling it is a `JobStateQuery`: True, the agent's job runs; False, it is gone; None, SLURM does not say. One squeue
    call answers for all agents of the study, and its answer is used for some seconds, so that it can be asked often
    and nobody waits long where SLURM is away.
    """

    def __init__(self, paths: StudyPaths) -> None:
        self._paths = paths
        self._jobs: list[QueuedJob] | None = None
        self._arrays: frozenset[str] = frozenset()
        self._asked = -float("inf")

    def __call__(self, holder: Holder) -> bool | None:
        if holder.job is None:
            return None
        known = self._query()
        if known is None or holder.job.partition("_")[0] not in self._arrays:
            return None
        return is_job_alive(known, holder.job, holder.restarts)

    def jobs(self) -> tuple[JobStatus, ...] | None:
        """The study's jobs, as SLURM has shown them lately; None: it does not answer."""
        known = self._query()
        if known is None:
            return None
        logs = {array.array_id: array.log or "" for array in recorded_arrays(self._paths)}
        causes = failures_of(self._paths)
        shown = []
        for job in known:
            log = log_of_job(logs.get(job.array_id, ""), job.array_id, job.index, job.raw_id)
            cause = causes.pop(job.job_id, None)
            ended = cause if job.ended else None
            place = job.reason, job.node, job.time_left
            shown.append(JobStatus(job.job_id, job.state, *place, log or None, ended, job.section))
        for job_id, cause in causes.items():  # SLURM forgets jobs after some minutes
            array, _, index = job_id.partition("_")
            log = log_of_job(logs.get(array, ""), array, int(index) if index.isdecimal() else None)
            shown.append(JobStatus(job_id, "FAILED", None, None, None, log or None, cause))
        return tuple(shown)

    def kept(self, config: Config) -> tuple[int, int, str | None]:
        """Jobs that the user took away, jobs that agents have submitted, and why that failed when it was last tried."""
        kept = read_kept_jobs(config)
        return kept.fewer, kept.submitted, kept.failure

    def _query(self) -> list[QueuedJob] | None:
        if time.monotonic() - self._asked > (_RETRY_AFTER if self._jobs is None else _ANSWER_SERVES):
            self._arrays = frozenset(array.array_id for array in recorded_arrays(self._paths))
            self._jobs = query_jobs_of_study(self._paths, timeout=_STATES_TIMEOUT)
            self._asked = time.monotonic()
        return self._jobs


def live_jobs(config: Config) -> LiveJobs:
    """How many jobs of the study, or of its section, can be stopped.

    Raises SubmissionError where SLURM does not answer.
    """
    return _count_jobs(_query_live_jobs(config))


def cancel_jobs(config: Config) -> LiveJobs:
    """Cancel all jobs of the study, or of its section; agents that run are told first and give their trials back.

    Returns the jobs that were there. Raises SubmissionError with SLURM's own words.
    """
    with locked(config.paths.kept_jobs_lock):  # an agent that is just submitting jobs does so before they are listed
        return _cancel_jobs(config)


def _cancel_jobs(config: Config) -> LiveJobs:
    paths, jobs = config.paths, _query_live_jobs(config)
    clusters = {array.array_id: array.cluster for array in recorded_arrays(paths)}
    wanted: defaultdict[str | None, set[str]] = defaultdict(set)
    for job in jobs:
        wanted[clusters.get(job.array_id)].add(job.array_id)
    for cluster, ids in wanted.items():
        _mark_stopped(paths, ids, True)  # agents read it when SLURM's signal comes, which does not say why
        answer = run_program("scancel", *cluster_option(cluster), *sorted(ids))
        if not answer.ok:
            _mark_stopped(paths, ids, False)
            raise SubmissionError(f"scancel did not stop the jobs {', '.join(sorted(ids))}: {answer.message}")
    return _count_jobs(jobs)


def _query_live_jobs(config: Config) -> list[QueuedJob]:
    jobs = query_jobs_of_study(config.paths)
    if jobs is None:
        raise SubmissionError(
            "SLURM does not answer, so its jobs cannot be listed or stopped now; try again when it is back."
        )
    return [job for job in of_section(config, jobs) if not job.ended]


def _count_jobs(jobs: list[QueuedJob]) -> LiveJobs:
    waiting = sum(job.pending for job in jobs)
    return LiveJobs(running=len(jobs) - waiting, waiting=waiting)


def _mark_stopped(paths: StudyPaths, array_ids: Collection[str], stopped: bool) -> None:
    """Say in the records of these arrays whether their user has stopped them. Raises OSError."""
    for array in recorded_arrays(paths):
        if array.array_id in array_ids:
            write_array(paths, replace(array, stopped=stopped))
