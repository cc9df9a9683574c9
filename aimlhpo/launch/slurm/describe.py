"""In words: what was submitted, and what each job will do."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from aimlhpo.errors import show_duration
from aimlhpo.launch.slurm.program import seconds_of_time_limit
from aimlhpo.launch.slurm.sbatch import Submitted

if TYPE_CHECKING:
    from aimlhpo.config.schema import Config, SlurmSection
    from aimlhpo.launch.slurm.plan import Submission

Rows = list[tuple[str, str]]
_GRES_GPUS = re.compile(r"(?:gres[:/])?gpu(?::[A-Za-z][^:,=(]*)?(?:[:=](\d+))?(?:\(.*\))?$")


def describe_submitted(config: Config, done: Submitted) -> Rows:
    """What the user wants to know once the jobs are in the queue."""
    save_path = config.paths.save_path
    before = [("besides", f"jobs of the study from before: {done.before}")] if done.before else []
    return [
        ("jobs", ", ".join(array.label for array in done.arrays)),
        *before,
        ("logs", done.submission.log),
        ("how it goes", f"aimlhpo status {save_path}  (live: aimlhpo watch {save_path})"),
        ("more jobs", f"aimlhpo submit {save_path} --jobs 5"),
        ("stop", f"aimlhpo stop {save_path}"),
        ("results", f"aimlhpo results {save_path}"),
    ]


def describe_jobs(config: Config, submission: Submission) -> Rows:
    """What each job will do."""
    section = config.slurm
    if section is None:
        return []
    count = "1 job" if submission.jobs == 1 else f"{submission.jobs} jobs, one array"
    return [
        ("jobs", f"{count}; each one agent on one node"),
        ("workers", _workers(section, submission)),
        ("python", _python(submission)),
        ("time limit", _time(section, submission)),
        ("logs", submission.log),
    ]


def gpus_per_job(submission: Submission) -> int | None:
    """The GPUs that a job asks for, as far as its options say; None: they do not."""
    found = [_per_node(submission, name) for name in ("gres", "gpus-per-node", "gpus")]
    told = [number for number in found if number is not None]
    per_task = _count(submission.value("gpus-per-task"))
    if per_task is not None:
        told.append(per_task * (_count(submission.value("ntasks")) or 1))
    return max(told, default=None)


def _per_node(submission: Submission, option: str) -> int | None:
    text = submission.value(option)
    if text is None or option != "gres":
        return _count(text)
    parts = [match for part in text.split(",") if (match := _GRES_GPUS.match(part))]
    return sum(int(match[1] or 1) for match in parts) if parts else None


def _count(text: str | None) -> int | None:
    number = (text or "").rpartition(":")[2]
    return int(number) if number.isdigit() else None


def _workers(section: SlurmSection, submission: Submission) -> str:
    if section.workers_per_job is not None:
        return f"{section.workers_per_job} in each job"
    found = gpus_per_job(submission)
    shared = section.trials_per_gpu
    if not found:
        return "one for each GPU of the job; one where it has none"
    number = found // section.gpus_per_worker * shared
    how = f"{section.gpus_per_worker} GPUs each" if section.gpus_per_worker > 1 else "one for each GPU"
    return f"{number} in each job, {how}" + (f", {shared} to a GPU" if shared > 1 else "")


def _python(submission: Submission) -> str:
    python = submission.python
    command = " ".join(python.command)
    if not python.prefer_activated:
        return command
    return f"the one that kernel: or bash: activate, where it can import aimlhpo; else {command}"


def _time(section: SlurmSection, submission: Submission) -> str:
    given = submission.value("time")
    limit = seconds_of_time_limit(given or "")
    shown = show_duration(limit) if limit is not None else (given or "the partition's own")
    if not section.requeue:
        return f"{shown}; at its end the running trials are given back"
    return f"{shown}; at its end the running trials are given back and the job is queued again while work is left"
