"""Handing a script to sbatch through submitit, which keeps the script and runs the command.
Submitting a study's jobs: the last step, and the only one with a side effect.
"""

from __future__ import annotations

import contextlib
import io
import os
import re
import subprocess
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from submitit.core.utils import FailedJobError, FailedSubmissionError
from submitit.slurm.slurm import SlurmExecutor

from aimlhpo.errors import SubmissionError
from aimlhpo.launch.slurm.options import log_directory, one_log_per_array
from aimlhpo.launch.slurm.plan import Submission, plan_submission
from aimlhpo.launch.slurm.program import on_cluster, require_program, run_program
from aimlhpo.launch.slurm.queue import JobArray, QueuedJob, jobs_of_study, recorded_arrays, write_array
from aimlhpo.launch.slurm.script import render
from aimlhpo.paths import StudyPaths

if TYPE_CHECKING:
    from aimlhpo.config.schema import Config

SBATCH_TIMEOUT = 180
"""Seconds for sbatch to get its answer, its own retries included."""
_TIMED_OUT = frozenset({124, 137})
_PARSABLE = re.compile(r"^(\d+)(?:;(\S+))?$", re.MULTILINE)

# Variables of the job that this command itself may be running in; they would pass for the new job's own.
_OF_A_JOB = re.compile(
    r"SLURM_(JOB|ARRAY|STEP|TASK|NTASKS|NPROCS|NNODES|NODE|CPU|MEM_|GPU|GTIDS|HET|TRES|RESTART|PROCID|LOCALID"
    r"|SUBMIT|DIST|PRIO|LAUNCH|SRUN|EXPORT|SHARDS|OVERCOMMIT|THREADS|CORES|TOPOLOGY|SCRIPT|CLUSTER_NAME)"
    r"|SLURMD_|(CUDA|ROCR|HIP)_VISIBLE_DEVICES$|GPU_DEVICE_ORDINAL$|ZE_AFFINITY_MASK$"
)
# sbatch takes a variable over a line of the script: a profile's default must not undo what the study says.
_VARIABLES = {
    "clusters": ("SBATCH_CLUSTERS", "SLURM_CLUSTERS"),
    "hint": ("SBATCH_HINT", "SLURM_HINT"),
    "mem": ("SBATCH_MEM_PER_NODE", "SBATCH_MEM_PER_CPU", "SBATCH_MEM_PER_GPU"),
    "mem-per-cpu": ("SBATCH_MEM_PER_NODE", "SBATCH_MEM_PER_CPU", "SBATCH_MEM_PER_GPU"),
    "mem-per-gpu": ("SBATCH_MEM_PER_NODE", "SBATCH_MEM_PER_CPU", "SBATCH_MEM_PER_GPU"),
    "switches": ("SBATCH_REQ_SWITCH", "SBATCH_WAIT4SWITCH"),
    "time": ("SBATCH_TIMELIMIT",),
}
_NEVER = ("SBATCH_ARRAY_INX", "SBATCH_WAIT", "SBATCH_REQUEUE", "SBATCH_NO_REQUEUE", "SBATCH_DEBUG")


@dataclass(frozen=True)
class Accepted:
    """What sbatch answered; `script` is the file name that SLURM shows as the job's command."""

    job_id: str
    cluster: str | None
    script: str


class _Executor(SlurmExecutor):
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
        return parse(self.answer)[0]


def sbatch(submission: Submission, text: str, folder: Path) -> Accepted:
    """Submit the script, keeping it in `folder`. Raises SubmissionError with SLURM's own words."""
    require_program("sbatch")
    executor = _Executor(folder, text, unwanted(submission, os.environ))
    try:
        with contextlib.redirect_stderr(io.StringIO()):  # submitit prints what it raises
            executor._submit_command("")
    except (FailedJobError, FailedSubmissionError) as error:
        if executor.script.is_file():
            executor.script.unlink()
        raise SubmissionError(_explain(error)) from error
    return Accepted(*parse(executor.answer), executor.script.name)


def parse(answer: str) -> tuple[str, str | None]:
    """The job id and the cluster's name from the answer of `sbatch --parsable`."""
    match = _PARSABLE.search(answer)
    if match is None:
        raise FailedSubmissionError(f"sbatch answered {answer.strip()!r}, which holds no job id")
    return match[1], match[2]


def unwanted(submission: Submission, environment: Iterable[str]) -> list[str]:
    """The variables that sbatch must not see: another job's, and those that undo what the script says."""
    undo = set(_NEVER)
    for name, _ in submission.options:
        undo.update(_VARIABLES.get(name, (f"SBATCH_{name.upper().replace('-', '_')}",)))
    return sorted(name for name in environment if name in undo or _OF_A_JOB.match(name))


def _explain(error: Exception) -> str:
    cause = error.__cause__
    if isinstance(cause, subprocess.CalledProcessError) and cause.returncode in _TIMED_OUT:
        return (
            f"sbatch got no answer from SLURM within {SBATCH_TIMEOUT} s: {error}\n"
            "    Look at `squeue --me` before submitting again: the jobs may have been accepted.\n"
            "    If they were, they belong to the study as soon as they start."
        )
    words = _indent(str(error))
    return f"sbatch did not take the jobs:\n{words}\n    None was submitted; try again when this is mended."


def _indent(text: str) -> str:
    return "\n".join(f"    {line}" for line in text.strip().splitlines()) or "    (it gave no reason)"


_MAX_ARRAY_SIZE = re.compile(r"^MaxArraySize\s*=\s*(\d+)", re.MULTILINE)


@dataclass(frozen=True)
class Submitted:
    """What was submitted, or, of a dry run, would be."""

    submission: Submission
    script: str
    arrays: tuple[JobArray, ...] = ()
    before: int = 0
    """Jobs of the study that were in the queue already."""


def submit(config: Config, *, jobs: int | None = None, dry_run: bool = False) -> Submitted:
    """Submit `jobs` jobs (by default the config's number), as one array where the cluster allows its size.

    The caller has made the study. Raises ConfigError, SubmissionError, OSError.
    """
    submission = plan_submission(config, jobs)
    if dry_run:
        return Submitted(submission, render(submission))
    require_program("sbatch")
    limit = max_array_size(submission.value("clusters"))
    paths = config.paths
    paths.create()
    config.write_snapshot()
    _make_log_directories(submission)
    living = _living(paths)
    # Beside living jobs the new ones go on counting, so that none writes into another's log file.
    placed = submission.part(max((job.index or 0 for job in living), default=-1) + 1, submission.jobs)
    return Submitted(placed, render(placed), tuple(_submit_parts(placed, limit, paths)), len(living))


def _living(paths: StudyPaths) -> list[QueuedJob]:
    known = jobs_of_study(paths) if recorded_arrays(paths) else None
    return [job for job in known or () if not job.ended]


def _submit_parts(submission: Submission, limit: int, paths: StudyPaths) -> Iterator[JobArray]:

    done: list[JobArray] = []
    for part in parts(submission, limit):
        try:
            accepted = sbatch(part, render(part), paths.jobs)
        except SubmissionError as error:
            raise _in_part(error, done, submission) from error
        done.append(_record(part, accepted.job_id, accepted.cluster, accepted.script))
        write_array(paths, done[-1])
        yield done[-1]


def parts(submission: Submission, limit: int) -> list[Submission]:
    """Arrays with indices below `limit`; more jobs than that count from 0 again, in an array of their own."""
    if submission.first + submission.jobs <= limit:
        return [submission]
    apart = _apart(submission)
    starts = range(0, submission.jobs, limit)
    return [apart.part(0, min(limit, submission.jobs - start)) for start in starts]


def _apart(submission: Submission) -> Submission:
    """The same, with output files that differ between arrays, too."""
    options = tuple(
        (name, one_log_per_array(value) if value and name in ("output", "error") else value)
        for name, value in submission.options
    )
    return replace(submission, options=options, log=one_log_per_array(submission.log))


def max_array_size(cluster: str | None) -> int:
    """How many elements an array can have. Raises SubmissionError where SLURM does not answer."""
    answer = run_program("scontrol", *on_cluster(cluster), "show", "config")
    match = _MAX_ARRAY_SIZE.search(answer.out)
    if not answer.ok or match is None:
        raise SubmissionError(
            f"SLURM does not answer: {answer.words or 'scontrol show config says nothing'}\n"
            "    No job was submitted; the study is there, submit again when SLURM is back."
        )
    if int(match[1]) < 1:
        raise SubmissionError("this cluster allows no job arrays (MaxArraySize is 0): ask its administrators")
    return int(match[1])


def _record(part: Submission, job_id: str, cluster: str | None, script: str) -> JobArray:
    return JobArray(
        array_id=job_id, count=part.jobs, first=part.first, cluster=cluster, script=script, log=part.log,
        python=" ".join(part.python.command),
    )  # fmt: skip


def _in_part(error: SubmissionError, done: list[JobArray], submission: Submission) -> SubmissionError:
    if not done:
        return error
    count = sum(array.count for array in done)
    labels = ", ".join(array.label for array in done)
    return SubmissionError(
        f"{error}\n    Of {submission.jobs} jobs, {count} were submitted before: {labels}.\n"
        f"    The others: aimlhpo submit {submission.save_path} --jobs {submission.jobs - count}"
    )


def _make_log_directories(submission: Submission) -> None:
    """SLURM fails a job in silence when the directory of its output is missing."""
    for name in (submission.log, submission.value("error")):
        directory = log_directory(name) if name else None
        if directory is not None:
            directory.mkdir(parents=True, exist_ok=True)
