"""Handing a script to sbatch through submitit, which keeps the script and runs the command."""

from __future__ import annotations

import contextlib
import io
import os
import re
import subprocess
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from submitit.core.utils import FailedJobError, FailedSubmissionError
from submitit.slurm.slurm import SlurmExecutor

from aimlhpo.errors import SubmissionError
from aimlhpo.launch.slurm import program
from aimlhpo.launch.slurm.request import Submission

TIMEOUT = 180
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
        bounded = ["timeout", "--foreground", "--kill-after=5", str(TIMEOUT)]
        return ["env", *without, *bounded, "sbatch", "--parsable", str(submission_file_path)]

    def _get_job_id_from_submission_command(self, string: bytes | str) -> str:  # type: ignore[override]
        self.answer = string if isinstance(string, str) else string.decode()
        return parse(self.answer)[0]


def sbatch(submission: Submission, text: str, folder: Path) -> Accepted:
    """Submit the script, keeping it in `folder`. Raises SubmissionError with SLURM's own words."""
    program.require("sbatch")
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
            f"sbatch got no answer from SLURM within {TIMEOUT} s: {error}\n"
            "    Look at `squeue --me` before submitting again: the jobs may have been accepted.\n"
            "    If they were, they belong to the study as soon as they start."
        )
    words = _indent(str(error))
    return f"sbatch did not take the jobs:\n{words}\n    None was submitted; try again when this is mended."


def _indent(text: str) -> str:
    return "\n".join(f"    {line}" for line in text.strip().splitlines()) or "    (it gave no reason)"
