"""Jobs in the place of those that end: what an agent does at the end of its job with `slurm: keep`.

Nothing runs on a login node for it. An agent whose job has no more time counts the study's jobs and submits those that
are missing, one agent at a time, under a lock in save_path. They begin when its own job has ended. Where there are
several sections of jobs, each agent does so for its own.

Only the end of a job's time is followed by a job. A job that its user cancels is not replaced, and the study goes on
with one job fewer until the user submits again: the agent that SLURM signals says so, and a job that is gone from the
queue although its agent never began was cancelled while it waited (or cannot begin, and its like could not, either).
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import datetime
from functools import partial
from typing import TYPE_CHECKING

from aimlhpo.errors import AimlhpoError, SubmissionError
from aimlhpo.launch.slurm.program import cluster_option, run_program
from aimlhpo.launch.slurm.queue import (
    KeptJobs,
    QueuedJob,
    has_begun,
    is_job_alive,
    of_section,
    query_jobs_of_study,
    read_kept_jobs,
    recorded_arrays,
    write_kept_jobs,
)
from aimlhpo.launch.slurm.sbatch import submit_from_job
from aimlhpo.ledger.leases import Registry
from aimlhpo.search.stopping import find_stop_reason
from aimlhpo.storage.base import backend_of, count_overview
from aimlhpo.storage.locks import locked
from aimlhpo.storage.open import disconnect_storage
from aimlhpo.storage.retry import RetryPolicy
from aimlhpo.storage.study import load_study
from aimlhpo.storage.trials import count_imported

if TYPE_CHECKING:
    from aimlhpo.config.schema import Config, SlurmSection

_OUTAGE_LIMIT = 20.0  # seconds to wait for the storage: the job has little time left


@dataclass(frozen=True)
class EndingJob:
    """The job that an agent is at the end of, as users see it (`1234_5`), and how often SLURM has restarted it."""

    job_id: str
    restarts: int

    @property
    def name(self) -> str:
        return f"{self.job_id}/{self.restarts}"


def submit_missing(config: Config, job: EndingJob, *, stays: bool) -> str:
    """Submit the jobs that are missing, from within a job that has no more time.

    Args:
        config: the study's configuration as it is now.
        job: the job of the agent that asks.
        stays: whether it is about to be queued again, so that it is not missing.

    Returns a line that says what was done, or why nothing was: what goes wrong is kept for `aimlhpo status`, too, and
    does not change how the agent ends.
    """
    paths, section = config.paths, config.slurm
    if section is None:
        return ""
    with suppress(OSError):  # where the study was started: relative paths of `batch` lead from there
        os.chdir(os.environ.get("SLURM_SUBMIT_DIR", "."))
    with locked(paths.kept_jobs_lock):
        kept = read_kept_jobs(config)
        try:
            kept, said = _submit_missing(config, section, kept, job, stays=stays)
            kept = replace(kept, failure=None)
        except (AimlhpoError, OSError) as error:
            when = datetime.now().strftime("%Y-%m-%d %H:%M")
            said = f"the jobs that are missing were not submitted: {error}"
            kept = replace(kept, failure=f"job {job.job_id}, {when}: {str(error).splitlines()[0]}")
        with suppress(OSError):  # the disk is full: said is what is left
            write_kept_jobs(config, kept)
    return said


def _submit_missing(
    config: Config, section: SlurmSection, kept: KeptJobs, job: EndingJob, *, stays: bool
) -> tuple[KeptJobs, str]:
    """What is known afterwards, and what was done in words. Raises SubmissionError, ConfigError, StorageError."""
    jobs = query_jobs_of_study(config.paths)
    if jobs is None:
        raise SubmissionError("SLURM does not answer, so it is not known which jobs are missing")
    if is_job_alive(jobs, job.job_id, job.restarts) is not True:
        return kept, "SLURM is ending this job already, so no job is submitted in its place"
    kept = kept.without(_cancelled_before_they_began(config, kept, jobs))
    still_there = {_name_of(each) for each in jobs if not each.ended}
    leaving = {*still_there.intersection(kept.leaving), *(() if stays else (job.name,))}
    of_study = [each for each in jobs if not each.ended and _name_of(each) not in leaving]
    living = of_section(config, of_study)
    kept = replace(kept, leaving=tuple(sorted(leaving)))

    retry = RetryPolicy(lambda line: print(line, flush=True), lambda: _OUTAGE_LIMIT)
    untaken = retry.run(partial(_trials_without_worker, config))
    # Each job that waits in the queue, of whichever section, will take one of the trials, at least.
    useful = untaken - sum(each.pending for each in of_study)
    wanted = max(0, section.jobs - kept.fewer)
    missing = min(wanted - len(living), useful)
    allowed = section.max_submissions - kept.submitted
    number = min(missing, allowed)
    there = f"{len(living)} of {wanted} other jobs of the study are there, {untaken} trials are left to take"
    if missing > 0 and number <= 0:
        raise SubmissionError(f"agents have submitted {kept.submitted} jobs, and max_submissions allows no more")
    if number <= 0:
        return kept, f"{there}: none is submitted"
    done = submit_from_job(config, jobs=number, after=job.job_id)
    labels = ", ".join(array.label for array in done.arrays)
    return replace(kept, submitted=kept.submitted + number), f"{there}: submitted {number}, {labels}"


def _trials_without_worker(config: Config) -> int:
    """How many trials of the budget nobody runs; 0 where the study has ended."""
    study = load_study(config)
    try:
        overview = backend_of(study._storage).overview(study._study_id)
        counts = count_overview(overview, count_imported(study))
        if find_stop_reason(study, config, counts) is not None:
            return 0
        return config.optuna.n_trials - counts.finished - counts.claimed
    finally:
        disconnect_storage(study._storage)


def _name_of(job: QueuedJob) -> str:
    return f"{job.job_id}/{job.restarts}"


def _cancelled_before_they_began(config: Config, kept: KeptJobs, jobs: Sequence[QueuedJob]) -> list[str]:
    """Jobs since the last submission of the user that are gone, and whose agents have never begun."""
    known = {job.job_id for job in jobs if not job.ended}
    submitted = (
        f"{array.array_id}_{index}"
        for array in of_section(config, recorded_arrays(config.paths))
        if kept.since and array.submitted >= kept.since
        for index in range(array.first, array.first + array.count)
    )
    return [job_id for job_id in submitted if job_id not in known and not has_begun(config.paths, job_id)]


def note_cancelled(config: Config, job_id: str) -> None:
    """Keep, from within a job, that its user has cancelled it, so that none is submitted in its place."""
    with suppress(OSError), locked(config.paths.kept_jobs_lock):
        write_kept_jobs(config, read_kept_jobs(config).without([job_id]))


def take_away(config: Config, count: int) -> tuple[int, int]:
    """Go on with `count` jobs fewer: cancel jobs that wait, and have agents end after the trials that they run.

    Returns how many jobs were cancelled, and how many agents were asked: fewer than `count` together where there are
    fewer, or where their agents have not begun yet. Raises SubmissionError, OSError.
    """
    paths = config.paths
    with locked(paths.kept_jobs_lock):
        jobs = query_jobs_of_study(paths)
        if jobs is None:
            raise SubmissionError("SLURM does not answer, so its jobs cannot be counted now; try again when it is back")
        jobs = of_section(config, jobs)
        waiting = [job for job in jobs if job.pending][-count:]
        clusters = {array.array_id: array.cluster for array in recorded_arrays(paths)}
        for cluster in {clusters.get(job.array_id) for job in waiting}:
            ids = [job.job_id for job in waiting if clusters.get(job.array_id) == cluster]
            # One that begins at this moment is left alone.
            answer = run_program("scancel", *cluster_option(cluster), "--state=PENDING", *ids)
            if not answer.ok:
                raise SubmissionError(f"scancel did not cancel the jobs {', '.join(ids)}: {answer.message}")
        registry = Registry(paths.leases, config.optuna.grace_period)
        running = {job.job_id for job in jobs if job.running}
        agents = [
            each for each in registry.living() if each.job in running and not registry.is_asked_to_end(each.agent)
        ]
        # Those that began first: their jobs have the least time left.
        asked = sorted(agents, key=lambda each: each.started)[: count - len(waiting)]
        for each in asked:
            registry.ask_to_end(each.agent)
        taken = [*(job.job_id for job in waiting), *(each.job for each in asked if each.job)]
        write_kept_jobs(config, read_kept_jobs(config).without(taken))
    return len(waiting), len(asked)
