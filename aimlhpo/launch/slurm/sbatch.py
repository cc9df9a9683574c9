"""Submitting a study's jobs: the only step with a side effect.

The scripts go to sbatch through submitit, which keeps a copy of each and runs the command. What was submitted is
recorded in save_path, one file for each array.
"""

from __future__ import annotations

import contextlib
import io
import os
import re
import subprocess
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from submitit.core.utils import FailedJobError, FailedSubmissionError
from submitit.slurm.slurm import SlurmExecutor

from aimlhpo.errors import SubmissionError
from aimlhpo.launch.base import submit_command
from aimlhpo.launch.slurm.options import log_directory, one_log_per_array
from aimlhpo.launch.slurm.plan import Submission, plan_submission
from aimlhpo.launch.slurm.program import cluster_option, require_program, run_program
from aimlhpo.launch.slurm.queue import (
    JobArray,
    KeptJobs,
    query_jobs_of_study,
    read_kept_jobs,
    recorded_arrays,
    write_array,
    write_kept_jobs,
)
from aimlhpo.launch.slurm.script import render_script
from aimlhpo.storage.locks import locked

if TYPE_CHECKING:
    from aimlhpo.config.paths import StudyPaths
    from aimlhpo.config.schema import Config

SBATCH_TIMEOUT = 180
"""Seconds for sbatch to get its answer, its own retries included."""
_TIMED_OUT = frozenset({124, 137})  # exit codes of `timeout`
_ANSWER = re.compile(r"^(\d+)(?:;(\S+))?$", re.MULTILINE)
_MAX_ARRAY_SIZE = re.compile(r"^MaxArraySize\s*=\s*(\d+)", re.MULTILINE)

# Variables of the job that this command itself may be running in; they would pass for the new job's own.
_OF_A_JOB = re.compile(
    r"SLURM_(JOB|ARRAY|STEP|TASK|NTASKS|NPROCS|NNODES|NODE|CPU|MEM_|GPU|GTIDS|HET|TRES|RESTART|PROCID|LOCALID"
    r"|SUBMIT|DIST|PRIO|LAUNCH|SRUN|EXPORT|SHARDS|OVERCOMMIT|THREADS|CORES|TOPOLOGY|SCRIPT|CLUSTER_NAME)"
    r"|SLURMD_|(CUDA|ROCR|HIP)_VISIBLE_DEVICES$|GPU_DEVICE_ORDINAL$|ZE_AFFINITY_MASK$"
)
# sbatch takes a variable over a line of the script: a profile's default must not undo what the study says.
_MEMORY = ("SBATCH_MEM_PER_NODE", "SBATCH_MEM_PER_CPU", "SBATCH_MEM_PER_GPU")
_VARIABLES = {
    "clusters": ("SBATCH_CLUSTERS", "SLURM_CLUSTERS"),
    "hint": ("SBATCH_HINT", "SLURM_HINT"),
    "mem": _MEMORY,
    "mem-per-cpu": _MEMORY,
    "mem-per-gpu": _MEMORY,
    "switches": ("SBATCH_REQ_SWITCH", "SBATCH_WAIT4SWITCH"),
    "time": ("SBATCH_TIMELIMIT",),
}
_NEVER = ("SBATCH_ARRAY_INX", "SBATCH_WAIT", "SBATCH_REQUEUE", "SBATCH_NO_REQUEUE", "SBATCH_DEBUG")


@dataclass(frozen=True)
class SubmittedJobs:
    """What was submitted."""

    submission: Submission
    arrays: tuple[JobArray, ...]
    before: int
    """Jobs of the study that were in the queue already."""


class _PartlySubmitted(SubmissionError):
    """Some arrays of a section were submitted, and the others were not."""


def submit_sections(config: Config, *, jobs: int | None = None) -> list[SubmittedJobs]:
    """Submit the jobs of each section that the configuration is about, as `submit_jobs` does.

    Raises SubmissionError, which says what was submitted before, ConfigError, OSError.
    """
    done: list[SubmittedJobs] = []
    sections = config.by_section()
    for each in sections:
        plan_submission(each, jobs)  # a mistake in the last is told before the first is submitted
    for each in sections:
        try:
            done.append(submit_jobs(each, jobs=jobs))
        except SubmissionError as error:
            begun = isinstance(error, _PartlySubmitted)  # it names the command for the others of this section
            if len(sections) == 1 or not (done or begun):
                raise
            said = [f"section {each.section}: {error}"]
            if done:
                before = ", ".join(array.label for one in done for array in one.arrays)
                said.append(f"    Of other sections, {before} were submitted before.")
            if rest := sections[len(done) + begun :]:
                commands = (submit_command(config.paths.save_path, other.section, jobs) for other in rest)
                said.append(f"    The rest: {'; '.join(commands)}")
            raise SubmissionError("\n".join(said)) from error
    return done


def submit_jobs(config: Config, *, jobs: int | None = None) -> SubmittedJobs:
    """Submit `jobs` jobs (by default the section's number), as one array where the cluster allows its size.

    The caller has made the study. What was known of jobs that the user took away does not count any more. Raises
    ConfigError, SubmissionError, OSError.
    """
    submission = plan_submission(config, jobs)
    require_program("sbatch")
    limit = max_array_size(submission.value("clusters"))
    paths = config.paths
    paths.create()
    config.write_snapshot()
    with locked(paths.kept_jobs_lock):
        kept = read_kept_jobs(config)
        done = submit_arrays(submission, limit, paths)
        write_kept_jobs(config, KeptJobs(since=done.arrays[0].submitted, submitted=kept.submitted))
    return done


def submit_from_job(config: Config, *, jobs: int, after: str) -> SubmittedJobs:
    """Submit jobs from within the job `after`, which begin when that has ended. The caller holds the lock.

    Raises ConfigError, SubmissionError, OSError.
    """
    submission = plan_submission(config, jobs)
    require_program("sbatch")
    given = submission.value("dependency")
    if "?" not in (given or ""):  # one of several is enough there, and cannot go together with "all of them"
        others = tuple(option for option in submission.options if option[0] != "dependency")
        wanted = ",".join(filter(None, (given, f"afterany:{after}")))
        submission = replace(submission, options=(*others, ("dependency", wanted)))
    return submit_arrays(submission, max_array_size(submission.value("clusters")), config.paths)


def submit_arrays(submission: Submission, limit: int, paths: StudyPaths) -> SubmittedJobs:
    """Submit all jobs in arrays with indices below `limit`. Raises SubmissionError, OSError."""
    for name in (submission.log, submission.value("error")):
        directory = log_directory(name) if name else None
        if directory is not None:  # SLURM fails a job in silence when the directory of its output is missing
            directory.mkdir(parents=True, exist_ok=True)

    # Beside living jobs the new ones go on counting, so that none writes into another's log file.
    known = query_jobs_of_study(paths) if recorded_arrays(paths) else None
    living = [job for job in known or () if not job.ended]
    first = max((job.index or 0 for job in living), default=-1) + 1
    submission = submission.with_elements(first, submission.jobs)

    arrays: list[JobArray] = []
    for part in split_submission(submission, limit):
        try:
            job_id, cluster, script = _run_sbatch(part, paths.jobs)
        except SubmissionError as error:
            if not arrays:
                raise
            count = sum(array.count for array in arrays)
            more = submit_command(submission.save_path, submission.section, submission.jobs - count)
            raise _PartlySubmitted(
                f"{error}\n    Of {submission.jobs} jobs, {count} were submitted before: "
                f"{', '.join(array.label for array in arrays)}.\n"
                f"    The others: {more}"
            ) from error
        python = " ".join(part.python.command)
        made = JobArray(job_id, part.jobs, part.first, cluster, script, part.log, python, section=part.section)
        arrays.append(made)
        write_array(paths, arrays[-1])
    return SubmittedJobs(submission, tuple(arrays), len(living))


def max_array_size(cluster: str | None) -> int:
    """How many elements an array can have. Raises SubmissionError where SLURM does not answer."""
    answer = run_program("scontrol", *cluster_option(cluster), "show", "config")
    match = _MAX_ARRAY_SIZE.search(answer.out)
    if not answer.ok or match is None:
        raise SubmissionError(
            f"SLURM does not answer: {answer.message or 'scontrol show config says nothing'}\n"
            "    No job was submitted; the study is there, submit again when SLURM is back."
        )
    if int(match[1]) < 1:
        raise SubmissionError("this cluster allows no job arrays (MaxArraySize is 0): ask its administrators")
    return int(match[1])


def split_submission(submission: Submission, limit: int) -> list[Submission]:
    """Arrays with indices below `limit`; more jobs than that count from 0 again, in an array of their own.

    Several arrays have elements of the same index, so their output files are told apart by the array's id, too.
    """
    if submission.first + submission.jobs <= limit:
        return [submission]
    options = tuple(
        (name, one_log_per_array(value) if value and name in ("output", "error") else value)
        for name, value in submission.options
    )
    apart = replace(submission, options=options, log=one_log_per_array(submission.log))
    starts = range(0, submission.jobs, limit)
    return [apart.with_elements(0, min(limit, submission.jobs - start)) for start in starts]


def _run_sbatch(submission: Submission, folder: Path) -> tuple[str, str | None, str]:
    """Submit one array, keeping its script in `folder`.

    Returns the job id, the cluster, and the script's file name, which SLURM shows as the job's command. Raises
    SubmissionError with SLURM's own words.
    """
    require_program("sbatch")
    executor = _ScriptExecutor(folder, render_script(submission), variables_to_unset(submission, os.environ))
    try:
        with contextlib.redirect_stderr(io.StringIO()):  # submitit prints what it raises
            executor._submit_command("")
    except (FailedJobError, FailedSubmissionError) as error:
        if executor.script.is_file():
            executor.script.unlink()
        cause = error.__cause__
        if isinstance(cause, subprocess.CalledProcessError) and cause.returncode in _TIMED_OUT:
            raise SubmissionError(
                f"sbatch got no answer from SLURM within {SBATCH_TIMEOUT} s: {error}\n"
                "    Look at `squeue --me` before submitting again: the jobs may have been accepted.\n"
                "    If they were, they belong to the study as soon as they start."
            ) from error
        reason = "\n".join(f"    {line}" for line in str(error).strip().splitlines()) or "    (it gave no reason)"
        raise SubmissionError(
            f"sbatch did not take the jobs:\n{reason}\n    None was submitted; try again when this is mended."
        ) from error
    return *parse_sbatch_answer(executor.answer), executor.script.name


class _ScriptExecutor(SlurmExecutor):
    """submitit's way to submit, with our script in place of its own, and no pickles."""

    def __init__(self, folder: Path, text: str, unset: Iterable[str]) -> None:
        super().__init__(folder)
        self.text = text
        self.unset = unset
        self.script = folder
        self.answer = ""

    @classmethod
    def affinity(cls) -> int:
        return 1  # srun, which submitit looks for, is not needed

    def _make_submission_file_text(self, command: str, uid: str) -> str:
        return self.text

    def _make_submission_command(self, submission_file_path: Path) -> list[str]:
        os.chmod(submission_file_path, 0o700)
        self.script = submission_file_path
        without = [f"--unset={name}" for name in self.unset]
        bounded = ["timeout", "--foreground", "--kill-after=5", str(SBATCH_TIMEOUT)]
        return ["env", *without, *bounded, "sbatch", "--parsable", str(submission_file_path)]

    def _get_job_id_from_submission_command(self, string: bytes | str) -> str:  # type: ignore[override]
        self.answer = string if isinstance(string, str) else string.decode()
        return parse_sbatch_answer(self.answer)[0]


def parse_sbatch_answer(answer: str) -> tuple[str, str | None]:
    """The job id and the cluster's name from the answer of `sbatch --parsable`."""
    match = _ANSWER.search(answer)
    if match is None:
        raise FailedSubmissionError(f"sbatch answered {answer.strip()!r}, which holds no job id")
    return match[1], match[2]


def variables_to_unset(submission: Submission, environment: Iterable[str]) -> list[str]:
    """The variables that sbatch must not see: another job's, and those that undo what the script says."""
    undo = set(_NEVER)
    for name, _ in submission.options:
        undo.update(_VARIABLES.get(name, (f"SBATCH_{name.upper().replace('-', '_')}",)))
    return sorted(name for name in environment if name in undo or _OF_A_JOB.match(name))
