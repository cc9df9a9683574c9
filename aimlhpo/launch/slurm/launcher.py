"""SLURM as a launcher: the `Launcher` interface, and what is submitted, in words."""

from __future__ import annotations

from typing import TYPE_CHECKING

from aimlhpo.agent.progress import View
from aimlhpo.config.paths import StudyPaths
from aimlhpo.errors import Problem, show_duration
from aimlhpo.launch.base import Launcher, LaunchPlan, LaunchReport, LiveJobs, Rows, submit_command
from aimlhpo.launch.slurm.job import read_job_environment, run_agent
from aimlhpo.launch.slurm.keep import take_away
from aimlhpo.launch.slurm.plan import Submission, check_submission, plan_submission
from aimlhpo.launch.slurm.program import STEP, seconds_of_time_limit
from aimlhpo.launch.slurm.queue import SlurmJobStates, cancel_jobs, live_jobs, recorded_arrays
from aimlhpo.launch.slurm.sbatch import render_script, submit_sections

if TYPE_CHECKING:
    from aimlhpo.agent.fork_server import ForkServer
    from aimlhpo.config.schema import Config, SlurmSection


class SlurmLauncher(Launcher):
    """Submits a job array for each section and returns; each of the jobs runs one agent."""

    submits = True

    def check(self, config: Config) -> list[Problem]:
        each_section = config.by_section()
        return [problem for each in each_section if each.slurm for problem in check_submission(each, each.slurm.jobs)]

    def plan(self, config: Config, count: int | None = None) -> list[LaunchPlan]:
        plans: list[LaunchPlan] = []
        first = 0
        for each in config.by_section():
            submission = plan_submission(each, count)
            submission = submission.with_elements(first, submission.jobs)
            first += submission.jobs  # as with jobs that are there already, none has the number of another
            rows = _describe_jobs(each.slurm, submission) if each.slurm is not None else []
            plans.append(LaunchPlan(rows, render_script(submission)))
        return plans

    def start(
        self, config: Config, view: View, count: int | None = None, fork_server: ForkServer | None = None
    ) -> LaunchReport:
        done = submit_sections(config, jobs=count)
        arrays = [array for each in done for array in each.arrays]
        jobs, save_path = sum(array.count for array in arrays), config.paths.save_path
        several = len(config.sections) > 1
        labels = [f"{array.label} ({array.section})" if several else array.label for array in arrays]
        more = submit_command(save_path, arrays[0].section if several else None, 5)
        rows = [
            ("jobs", ", ".join(labels)),
            ("logs", ", ".join(dict.fromkeys(each.submission.log for each in done))),
            ("how it goes", f"aimlhpo status {save_path}  (live: aimlhpo watch {save_path})"),
            ("more jobs", more),
            ("stop", f"aimlhpo stop {save_path}"),
            ("results", f"aimlhpo results {save_path}"),
        ]
        if done[0].before:
            rows.insert(1, ("besides", f"jobs of the study from before: {done[0].before}"))
        headline = f"study {config.optuna.study_name}: {jobs} job{'s' if jobs > 1 else ''} submitted"
        return LaunchReport(headline, rows)

    def is_in_job(self) -> bool:
        return read_job_environment() is not None

    def run_job(self, config: Config, view: View) -> int:
        return run_agent(config, view)

    def job_states(self, paths: StudyPaths) -> SlurmJobStates | None:
        return SlurmJobStates(paths) if recorded_arrays(paths) else None

    def live_jobs(self, config: Config) -> LiveJobs:
        return live_jobs(config)

    def cancel_jobs(self, config: Config) -> LiveJobs:
        return cancel_jobs(config)

    def take_away_jobs(self, config: Config, count: int) -> tuple[int, int]:
        return take_away(config, count)


def _describe_jobs(section: SlurmSection, submission: Submission) -> Rows:
    """What each job will do."""
    count = "1 job" if submission.jobs == 1 else f"{submission.jobs} jobs, one array"
    python = " ".join(submission.python.command)
    if submission.python.prefer_activated:
        python = f"the one that kernel: or bash: activate, where it can import aimlhpo; else {python}"
    given = submission.value("time")
    limit = seconds_of_time_limit(given or "")
    time_limit = show_duration(limit) if limit is not None else given or "the partition's own"
    end = "at its end the running trials are given back"
    if section.requeue:
        end += " and the job is queued again while work is left"
    if section.keep:
        end += f"; agents submit jobs that are missing, up to {section.max_submissions}, while trials are left"
    nodes = "one node" if submission.nodes == 1 else f"{submission.nodes} nodes"
    step = []
    if section.nodes_per_worker > 1:
        line = " ".join(STEP).replace("{number}", str(section.nodes_per_worker - 1)).replace("{names}", "NODES")
        step = [("other nodes", f"a trial's processes are started there by: {line} {python} ...")]
    return [
        *([("section", submission.section)] if submission.section is not None else []),
        ("jobs", f"{count}; each one agent on {nodes}"),
        ("workers", _describe_workers(section, submission)),
        *step,
        ("python", python),
        ("time limit", f"{time_limit}; {end}"),
        ("logs", submission.log),
    ]


def _describe_workers(section: SlurmSection, submission: Submission) -> str:
    if section.workers_per_job is not None:
        return f"{section.workers_per_job} in each job"
    gpus, shared = submission.gpus_per_node, section.most_trials_per_gpu
    nodes, processes = section.nodes_per_worker, section.gpus_per_worker
    groups = submission.nodes // nodes
    if not gpus and nodes > 1:
        return f"{groups} in each job, {processes} processes on each of {nodes} nodes"
    if section.packs:
        return f"one for each GPU of the job, and up to {shared} where its memory and utilisation allow it"
    if not gpus:
        return "one for each GPU of the job; one where it has none"
    workers = gpus // processes * shared * groups
    how = f"{processes} GPUs each" if processes > 1 else "one for each GPU"
    if nodes > 1:
        how = f"{processes} GPUs on each of {nodes} nodes"
    return f"{workers} in each job, {how}" + (f", {shared} to a GPU" if shared > 1 else "")
