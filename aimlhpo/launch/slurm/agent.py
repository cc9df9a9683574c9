"""What a SLURM job runs: one agent with all the job's CPUs and GPUs, and the way back into the queue."""

from __future__ import annotations

import os
import signal
import sys
import time
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from aimlhpo.devices import Slot, plan_slots, visible_gpus
from aimlhpo.errors import ConfigError, DeviceError, ExitCode, Problem, StudyFailed
from aimlhpo.interruptions import STOPPED_BY_USER
from aimlhpo.launch.slurm import arrays, environment, signals, termination
from aimlhpo.launch.slurm.environment import JobEnvironment
from aimlhpo.launch.slurm.word import SlurmWord

if TYPE_CHECKING:
    from aimlhpo.agent import Ending
    from aimlhpo.config import Config, SlurmSection

WALLTIME = "walltime"
PREEMPTED = "preempted"
CAUSES = {
    signal.SIGUSR1: WALLTIME,
    signal.SIGUSR2: WALLTIME,
    signal.SIGTERM: PREEMPTED,
    signal.SIGINT: STOPPED_BY_USER,
}
"""What SLURM's signals mean to an agent: it sends SIGTERM for preemption, requeue and scancel alike."""


def causes(config: Config) -> dict[signal.Signals, str]:
    """The same, with the signal that the study's own `batch: signal` asks for."""
    given = config.slurm.batch.get("signal") if config.slurm else None
    announced = signals.parse(given) if isinstance(given, str) else None
    return CAUSES if announced is None else {**CAUSES, announced: WALLTIME}


def run_agent(config: Config) -> int:
    """Run this job's agent to its end, and queue the job again where its time ran out before the study did.

    Raises ConfigError outside SLURM, and what the agent raises.
    """
    job = environment.read()
    if job is None:
        raise ConfigError(Problem("aimlhpo agent", "this is no SLURM job", "jobs run it; `aimlhpo optimize` submits"))
    _check_job(job)
    if job.array_id is not None:
        arrays.adopt(config.paths, job.array_id, job.array_count, job.array_first)
    began = time.time()
    slots = slots_of(config, job)
    print(f"job {job.job_id} on {job.node}: python {sys.executable}, workers on {_named(slots)}", flush=True)
    ending = _run(config, job, slots)
    if ending.cause is None:
        return ExitCode.DONE
    return _after(config, job, ending, began)


def _check_job(job: JobEnvironment) -> None:
    if job.nodes > 1:
        found = f"job {job.job_id} has {job.nodes} nodes"
        raise ConfigError(Problem("slurm:batch:nodes", found, "1: an agent fills one node; ask for more jobs"))


def slots_of(config: Config, job: JobEnvironment) -> list[Slot]:
    """The job's slots: what SLURM says of GPUs is believed, also where the objective does not use them.

    Raises DeviceError.
    """
    section = config.slurm
    gpus = list(job.gpus or ()) if job.gpus is not None or not config.optuna.gpu else visible_gpus()
    try:
        return plan_slots(
            gpus,
            cuda=config.optuna.gpu,
            workers=section.workers_per_job if section else None,
            trials_per_gpu=section.trials_per_gpu if section else 1,
            gpus_per_worker=section.gpus_per_worker if section else 1,
            n_cpus=job.cpus,
        )
    except DeviceError as error:
        raise DeviceError(f"job {job.job_id} on {job.node}: {error}") from error


def _run(config: Config, job: JobEnvironment, slots: list[Slot]) -> Ending:
    from aimlhpo.agent import Agent
    from aimlhpo.agent.walltime import Job
    from aimlhpo.launch.live import make_view

    view = make_view(config)
    view.start()
    try:
        described = Job(job.job_id, job.restarts, environment.end_time(job))
        word, why = SlurmWord(config.paths), partial(_why, config, job, described.deadline)
        return Agent(config, slots, view, causes=causes(config), job=described, word=word, why=why).run()
    finally:
        view.stop()


def _why(config: Config, job: JobEnvironment, deadline: float | None, cause: str) -> str:
    """What SIGTERM was sent for, where that can be known."""
    if cause != PREEMPTED or (deadline is not None and time.time() >= deadline):
        return cause
    return STOPPED_BY_USER if termination.is_by_user(config.paths, job) else cause


def _after(config: Config, job: JobEnvironment, ending: Ending, began: float) -> int:
    """The end of an agent that was stopped while the study goes on."""
    left = config.optuna.n_trials - ending.standing.counts.finished
    if ending.cause != WALLTIME or left <= 0 or ending.standing.ended:
        return ExitCode.DONE
    refused = _no_requeue(config.slurm, job) or _no_progress(config, ending, began)
    if refused is None:
        print(f"job {job.job_id}: its time is over, {left} trials are left; asking SLURM to queue it again", flush=True)
        refused = environment.requeue(job)
    if refused is None:
        return ExitCode.DONE
    raise StudyFailed(
        f"job {job.job_id}: its time is over, {left} trials are left, and it is not queued again: {refused}\n"
        f"    Where no other job of the study goes on: aimlhpo submit {config.paths.save_path}"
    )


def _no_requeue(section: SlurmSection | None, job: JobEnvironment) -> str | None:
    if section is None or not section.requeue:
        return "slurm: requeue is false"
    if section.max_requeues is not None and job.restarts >= section.max_requeues:
        return f"slurm: max_requeues is {section.max_requeues}"
    return None


def _no_progress(config: Config, ending: Ending, began: float) -> str | None:
    """A job that would only do again what it could not finish this time is not queued again."""
    if ending.trials_run or _written_since(config.paths.checkpoints, began):
        return None
    return (
        "it finished no trial and wrote no checkpoint, so another run of it would get no further.\n"
        "    Give it more time (slurm: batch: time), or let the objective keep checkpoints (checkpoint_dir)"
    )


def _written_since(directory: Path, began: float) -> bool:
    margin = 2.0  # seconds between the clocks of this node and of the file system
    for folder, _, files in os.walk(directory):
        for name in files:
            try:
                if os.stat(os.path.join(folder, name)).st_mtime >= began - margin:
                    return True
            except FileNotFoundError:  # replaced meanwhile: somebody writes
                return True
    return False


def _named(slots: list[Slot]) -> str:
    return "; ".join(slot.label for slot in slots)
