"""Why SLURM ends a job: it sends SIGTERM for a preemption, a requeue, a lost node and scancel alike."""

from __future__ import annotations

from aimlhpo.launch.slurm import arrays, program
from aimlhpo.launch.slurm.environment import JobEnvironment
from aimlhpo.paths import StudyPaths

_PATIENCE = 10.0  # seconds: after KillWait (30 by default) nobody is there to be told


def is_by_user(paths: StudyPaths, job: JobEnvironment) -> bool:
    """Whether the job is cancelled, by `aimlhpo stop` or scancel, as far as anybody says."""
    return (job.array_id is not None and arrays.is_stopped(paths, job.array_id)) or _is_cancelled(job)


def _is_cancelled(job: JobEnvironment) -> bool:
    """A job that is going for good, and not because others came first: preempted ones are queued again or marked."""
    answer = program.ask("scontrol", "show", "job", job.job_id, timeout=_PATIENCE)
    said = dict(word.split("=", 1) for word in answer.out.split() if "=" in word)
    ends = said.get("JobState") in ("COMPLETING", "CANCELLED") and said.get("Restarts") == str(job.restarts)
    return answer.ok and ends and said.get("PreemptTime") == "None"
