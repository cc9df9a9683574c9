"""What an agent's job knows of itself: SLURM's word first, and nothing outside a job.
Why SLURM ends a job: it sends SIGTERM for a preemption, a requeue, a lost node and scancel alike.
What a SLURM job runs: one agent with all the job's CPUs and GPUs, and the way back into the queue.
"""

from __future__ import annotations

import os
import re
import signal
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from aimlhpo.errors import ConfigError, DeviceError, ExitCode, Problem, StudyFailed
from aimlhpo.launch.slurm.program import PROGRAM_TIMEOUT, is_unreachable, parse_signal_option, run_program
from aimlhpo.launch.slurm.queue import SlurmJobStates, adopt_array, is_job_alive, is_stopped, query_jobs
from aimlhpo.ledger.completion import STOPPED_BY_USER
from aimlhpo.paths import StudyPaths
from aimlhpo.worker.devices import Slot, plan_slots, visible_gpus

if TYPE_CHECKING:
    from aimlhpo.agent.agent import Agent, Ending
from aimlhpo.agent.progress import View
from aimlhpo.agent.stop_requests import AgentJob
from aimlhpo.config.schema import Config, SlurmSection

_GPU_VARIABLES = ("CUDA_VISIBLE_DEVICES", "HIP_VISIBLE_DEVICES", "ROCR_VISIBLE_DEVICES", "SLURM_JOB_GPUS")
_NO_GPU = frozenset({"", "-1", "NoDevFiles"})
_FIRST_NUMBER = re.compile(r"\d+")
_ATTEMPTS = 3


@dataclass(frozen=True)
class JobEnvironment:
    """The job this process runs in."""

    job_id: str
    """As users see it, with the element of the array: `1234_5`."""
    raw_id: str
    array_id: str | None
    index: int | None
    array_count: int
    array_first: int
    restarts: int
    node: str
    nodes: int
    cpus: int | None
    gpus: tuple[str, ...] | None
    """The GPUs of the job as CUDA_VISIBLE_DEVICES names them (indices, UUIDs, MIG names); None: SLURM says nothing."""
    gpu_source: str | None
    """The variable that names the GPUs."""


def read_job_environment(environment: Mapping[str, str] = os.environ) -> JobEnvironment | None:
    """The job this process runs in, or None outside SLURM."""
    if "SLURM_JOB_ID" not in environment:
        return None
    from submitit.slurm.slurm import SlurmJobEnvironment

    names = SlurmJobEnvironment._env
    get = {key: environment.get(name) for key, name in names.items()}
    array, index = get["array_job_id"], get["array_task_id"]
    source = next((name for name in _GPU_VARIABLES if name in environment), None)
    return JobEnvironment(
        job_id=f"{array}_{index}" if array else str(get["job_id"]),
        raw_id=str(get["job_id"]),
        array_id=array,
        index=_number(index),
        array_count=_number(environment.get("SLURM_ARRAY_TASK_COUNT")) or 1,
        array_first=_number(environment.get("SLURM_ARRAY_TASK_MIN")) or 0,
        restarts=_number(environment.get("SLURM_RESTART_COUNT")) or 0,
        node=environment.get("SLURMD_NODENAME") or os.uname().nodename,
        nodes=_number(get["num_nodes"]) or 1,
        cpus=_number(environment.get("SLURM_CPUS_ON_NODE") or environment.get("SLURM_JOB_CPUS_PER_NODE")),
        gpus=None if source is None else _gpus(environment[source]),
        gpu_source=source,
    )


def end_time(job: JobEnvironment, environment: Mapping[str, str] = os.environ) -> float | None:
    """When SLURM will end the job, in seconds since 1970; None without a limit, or where SLURM does not say."""
    told = _number(environment.get("SLURM_JOB_END_TIME"))
    if told:
        return float(told)
    answer = run_program("squeue", "--noheader", f"--jobs={job.raw_id}", "--Format=EndTime:24")
    end = _number(answer.out.strip()) if answer.ok else None
    # Partitions without a limit get one of a year; a job's agent need not plan for that.
    return float(end) if end and end < time.time() + 300 * 86400 else None


def requeue_job(job: JobEnvironment, patience: float = PROGRAM_TIMEOUT) -> str | None:
    """Put this job back into the queue, as the last thing it does: SLURM then ends it.

    None when SLURM took it, else SLURM's reason not to. Takes `patience` seconds at most.
    """
    deadline, words = time.monotonic() + patience, ""
    if _is_ending(job):
        return "SLURM is ending it already"  # queued again, a job that the user cancelled would come back
    for _ in range(_ATTEMPTS):
        answer = run_program("scontrol", "requeue", job.job_id, timeout=max(1.0, deadline - time.monotonic()))
        if answer.ok:
            return None
        words = answer.words or f"scontrol requeue ended with {answer.code}"
        if not is_unreachable(answer) or time.monotonic() > deadline:
            break
    return words


def _is_ending(job: JobEnvironment) -> bool:
    known = query_jobs([job.raw_id])
    return known is not None and is_job_alive(known, job.raw_id, job.restarts) is not True


def _gpus(listed: str) -> tuple[str, ...]:
    """The names up to the first that hides the rest, as CUDA reads the variable."""
    names = [name.strip() for name in listed.split(",")]
    hidden = next((position for position, name in enumerate(names) if name in _NO_GPU), len(names))
    return tuple(names[:hidden])


def _number(text: str | None) -> int | None:
    match = _FIRST_NUMBER.match(text or "")
    return int(match[0]) if match else None


_PATIENCE = 10.0  # seconds: after KillWait (30 by default) nobody is there to be told


def is_cancelled_by_user(paths: StudyPaths, job: JobEnvironment) -> bool:
    """Whether the job is cancelled, by `aimlhpo stop` or scancel, as far as anybody says."""
    return (job.array_id is not None and is_stopped(paths, job.array_id)) or _is_cancelled(job)


def _is_cancelled(job: JobEnvironment) -> bool:
    """A job that is going for good, and not because others came first: preempted ones are queued again or marked."""
    answer = run_program("scontrol", "show", "job", job.job_id, timeout=_PATIENCE)
    said = dict(word.split("=", 1) for word in answer.out.split() if "=" in word)
    ends = said.get("JobState") in ("COMPLETING", "CANCELLED") and said.get("Restarts") == str(job.restarts)
    return answer.ok and ends and said.get("PreemptTime") == "None"


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
    announced = parse_signal_option(given) if isinstance(given, str) else None
    return CAUSES if announced is None else {**CAUSES, announced: WALLTIME}


def run_agent(config: Config, view: View) -> int:
    """Run this job's agent to its end, and queue the job again where its time ran out before the study did.

    Raises ConfigError outside SLURM, and what the agent raises.
    """
    job = read_job_environment()
    if job is None:
        raise ConfigError(Problem("aimlhpo agent", "this is no SLURM job", "jobs run it; `aimlhpo optimize` submits"))
    _check_job(job)
    if job.array_id is not None:
        adopt_array(config.paths, job.array_id, job.array_count, job.array_first)
    began = time.time()
    slots = slots_of(config, job)
    print(f"job {job.job_id} on {job.node}: python {sys.executable}, workers on {_named(slots)}", flush=True)
    ending = _run(config, view, job, slots)
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


def _run(config: Config, view: View, job: JobEnvironment, slots: list[Slot]) -> Ending:
    view.start()
    try:
        described = AgentJob(job.job_id, job.restarts, end_time(job))
        explain = partial(_why, config, job, described.deadline)
        states = SlurmJobStates(config.paths)
        return Agent(
            config,
            slots,
            view,
            causes=causes(config),
            job=described,
            query_job_state=states,
            explain_cause=explain,
        ).run()
    finally:
        view.stop()


def _why(config: Config, job: JobEnvironment, deadline: float | None, cause: str) -> str:
    """What SIGTERM was sent for, where that can be known."""
    if cause != PREEMPTED or (deadline is not None and time.time() >= deadline):
        return cause
    return STOPPED_BY_USER if is_cancelled_by_user(config.paths, job) else cause


def _after(config: Config, job: JobEnvironment, ending: Ending, began: float) -> int:
    """The end of an agent that was stopped while the study goes on."""
    left = config.optuna.n_trials - ending.snapshot.counts.finished
    if ending.cause != WALLTIME or left <= 0 or ending.snapshot.ended:
        return ExitCode.DONE
    refused = _no_requeue(config.slurm, job) or _no_progress(config, ending, began)
    if refused is None:
        print(f"job {job.job_id}: its time is over, {left} trials are left; asking SLURM to queue it again", flush=True)
        refused = requeue_job(job)
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
