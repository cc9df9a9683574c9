"""Ending a study's own jobs, and no others."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass

from aimlhpo.errors import SubmissionError
from aimlhpo.launch.slurm import arrays, program, queue
from aimlhpo.launch.slurm.queue import Job
from aimlhpo.paths import StudyPaths


@dataclass(frozen=True)
class Living:
    """The jobs of a study that have not ended."""

    running: tuple[Job, ...]
    waiting: tuple[Job, ...]

    def __bool__(self) -> bool:
        return bool(self.running or self.waiting)


def living(paths: StudyPaths) -> Living:
    """The jobs that can be stopped. Raises SubmissionError where SLURM does not answer."""
    jobs = queue.jobs(paths)
    if jobs is None:
        raise SubmissionError(
            "SLURM does not answer, so its jobs cannot be listed or stopped now; try again when it is back."
        )
    here = [job for job in jobs if not job.ended]
    return Living(
        tuple(job for job in here if not job.pending),
        tuple(job for job in here if job.pending),
    )


def stop(paths: StudyPaths) -> Living:
    """Cancel all jobs of the study; agents that run are told first and give their trials back.

    Returns the jobs that were there. Raises SubmissionError with SLURM's own words.
    """
    found = living(paths)
    clusters = {array.array_id: array.cluster for array in arrays.recorded(paths)}
    wanted: defaultdict[str | None, set[str]] = defaultdict(set)
    for job in (*found.running, *found.waiting):
        wanted[clusters.get(job.array_id)].add(job.array_id)
    for cluster, ids in wanted.items():
        arrays.note_stopped(paths, ids)  # agents read it when SLURM's signal comes, which says nothing
        answer = program.ask("scancel", *program.on_cluster(cluster), *sorted(ids))
        if not answer.ok:
            arrays.note_stopped(paths, ids, stopped=False)
            raise SubmissionError(f"scancel did not stop the jobs {', '.join(sorted(ids))}: {answer.words}")
    return found
