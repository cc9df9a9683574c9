"""Submitting a study's jobs: the last step, and the only one with a side effect."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from aimlhpo.errors import SubmissionError
from aimlhpo.launch.slurm import arrays, logs, program, queue
from aimlhpo.launch.slurm.arrays import Array
from aimlhpo.launch.slurm.plan import plan
from aimlhpo.launch.slurm.render import render
from aimlhpo.launch.slurm.request import Submission
from aimlhpo.paths import StudyPaths

if TYPE_CHECKING:
    from aimlhpo.config import Config

_MAX_ARRAY_SIZE = re.compile(r"^MaxArraySize\s*=\s*(\d+)", re.MULTILINE)


@dataclass(frozen=True)
class Submitted:
    """What was submitted, or, of a dry run, would be."""

    submission: Submission
    script: str
    arrays: tuple[Array, ...] = ()
    before: int = 0
    """Jobs of the study that were in the queue already."""


def submit(config: Config, *, jobs: int | None = None, dry_run: bool = False) -> Submitted:
    """Submit `jobs` jobs (by default the config's number), as one array where the cluster allows its size.

    The caller has made the study. Raises ConfigError, SubmissionError, OSError.
    """
    submission = plan(config, jobs)
    if dry_run:
        return Submitted(submission, render(submission))
    program.require("sbatch")
    limit = max_array_size(submission.value("clusters"))
    paths = config.paths
    paths.create()
    config.write_snapshot()
    _make_log_directories(submission)
    living = _living(paths)
    # Beside living jobs the new ones go on counting, so that none writes into another's log file.
    placed = submission.part(max((job.index or 0 for job in living), default=-1) + 1, submission.jobs)
    return Submitted(placed, render(placed), tuple(_submit_parts(placed, limit, paths)), len(living))


def _living(paths: StudyPaths) -> list[queue.Job]:
    known = queue.jobs(paths) if arrays.recorded(paths) else None
    return [job for job in known or () if not job.ended]


def _submit_parts(submission: Submission, limit: int, paths: StudyPaths) -> Iterator[Array]:
    from aimlhpo.launch.slurm.sbatch import sbatch

    done: list[Array] = []
    for part in parts(submission, limit):
        try:
            accepted = sbatch(part, render(part), paths.jobs)
        except SubmissionError as error:
            raise _in_part(error, done, submission) from error
        done.append(_record(part, accepted.job_id, accepted.cluster, accepted.script))
        arrays.write(paths, done[-1])
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
        (name, logs.one_per_array(value) if value and name in ("output", "error") else value)
        for name, value in submission.options
    )
    return replace(submission, options=options, log=logs.one_per_array(submission.log))


def max_array_size(cluster: str | None) -> int:
    """How many elements an array can have. Raises SubmissionError where SLURM does not answer."""
    answer = program.ask("scontrol", *program.on_cluster(cluster), "show", "config")
    match = _MAX_ARRAY_SIZE.search(answer.out)
    if not answer.ok or match is None:
        raise SubmissionError(
            f"SLURM does not answer: {answer.words or 'scontrol show config says nothing'}\n"
            "    No job was submitted; the study is there, submit again when SLURM is back."
        )
    if int(match[1]) < 1:
        raise SubmissionError("this cluster allows no job arrays (MaxArraySize is 0): ask its administrators")
    return int(match[1])


def _record(part: Submission, job_id: str, cluster: str | None, script: str) -> Array:
    return Array(
        array_id=job_id, count=part.jobs, first=part.first, cluster=cluster, script=script, log=part.log,
        python=" ".join(part.python.command),
    )  # fmt: skip


def _in_part(error: SubmissionError, done: list[Array], submission: Submission) -> SubmissionError:
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
        directory = logs.directory(name) if name else None
        if directory is not None:
            directory.mkdir(parents=True, exist_ok=True)
