"""What a SLURM job runs: one agent with all the job's CPUs and GPUs, and then the way back into the queue.

This also holds all that the agent needs to know of its job: the devices, the time limit, what SLURM's signals mean,
and whether the job was cancelled or preempted, for both of which SLURM sends SIGTERM.
"""

from __future__ import annotations

import os
import re
import shlex
import signal
import sys
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from submitit.slurm.slurm import SlurmJobEnvironment

from aimlhpo.agent.agent import Agent, Ending
from aimlhpo.agent.progress import View
from aimlhpo.agent.stop_requests import NODE_LOST, AgentJob
from aimlhpo.config.paths import StudyPaths, replace_file
from aimlhpo.errors import AimlhpoError, ConfigError, DeviceError, ExitCode, Interrupted, Problem, StudyFailed
from aimlhpo.launch.slurm.keep import EndingJob, note_cancelled, submit_missing
from aimlhpo.launch.slurm.program import PROGRAM_TIMEOUT, STEP, nodes_of_job, parse_signal_option, run_program
from aimlhpo.launch.slurm.queue import (
    JobArray,
    SlurmJobStates,
    is_job_alive,
    is_stopped,
    note_begun,
    note_failure,
    query_jobs,
    write_array_if_missing,
)
from aimlhpo.ledger.completion import STOPPED_BY_USER
from aimlhpo.worker.devices import SLOT_GPUS, Slot, plan_slots, spread_over_nodes, visible_gpus

if TYPE_CHECKING:
    from aimlhpo.config.schema import Config

WALLTIME = "walltime"
PREEMPTED = "preempted"
_CAUSES = {
    signal.SIGUSR1: WALLTIME,
    signal.SIGUSR2: WALLTIME,
    signal.SIGTERM: PREEMPTED,
    signal.SIGINT: STOPPED_BY_USER,
}
"""What SLURM's signals mean to an agent: it sends SIGTERM for preemption, requeue and scancel alike."""

_GPU_VARIABLES = ("CUDA_VISIBLE_DEVICES", "HIP_VISIBLE_DEVICES", "ROCR_VISIBLE_DEVICES", "SLURM_JOB_GPUS")
_NO_GPU = frozenset({"", "-1", "NoDevFiles"})
_FIRST_NUMBER = re.compile(r"\d+")
_TASK_PROLOG = f'#!/bin/sh\n[ -z "${SLOT_GPUS}" ] || echo "export CUDA_VISIBLE_DEVICES=${SLOT_GPUS}"\n'
_REQUEUE_ATTEMPTS = 3
_CANCEL_TIMEOUT = 10.0  # seconds: after KillWait (30 by default) nobody is there to be told
_CLOCK_MARGIN = 2.0  # seconds between the clocks of this node and of the file system


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
    get = {key: environment.get(name) for key, name in SlurmJobEnvironment._env.items()}
    array, index = get["array_job_id"], get["array_task_id"]
    gpus, source = None, next((name for name in _GPU_VARIABLES if name in environment), None)
    if source is not None:
        # The names up to the first that hides the rest, as CUDA reads the variable.
        names = [name.strip() for name in environment[source].split(",")]
        hidden = next((position for position, name in enumerate(names) if name in _NO_GPU), len(names))
        gpus = tuple(names[:hidden])
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
        gpus=gpus,
        gpu_source=source,
    )


def job_end_time(job: JobEnvironment, environment: Mapping[str, str] = os.environ) -> float | None:
    """When SLURM will end the job, in seconds since 1970; None without a limit, or where SLURM does not say."""
    given = _number(environment.get("SLURM_JOB_END_TIME"))
    if given:
        return float(given)
    answer = run_program("squeue", "--noheader", f"--jobs={job.raw_id}", "--Format=EndTime:24")
    end = _number(answer.out.strip()) if answer.ok else None
    # Partitions without a limit get one of a year; a job's agent need not plan for that.
    return float(end) if end and end < time.time() + 300 * 86400 else None


def _number(text: str | None) -> int | None:
    match = _FIRST_NUMBER.match(text or "")
    return int(match[0]) if match else None


def run_agent(config: Config, view: View) -> int:
    """Run this job's agent to its end, and queue the job again where its time ran out before the study did.

    Why it failed is kept for the status. Raises ConfigError where the job has several nodes, and what the agent raises.
    """
    job = read_job_environment()
    if job is None:
        raise RuntimeError("an agent of SLURM runs in a job")
    note_failure(config.paths, job.job_id, None)
    note_begun(config.paths, job.job_id)
    try:
        return _run_agent(config, view, job)
    except AimlhpoError as error:
        if not isinstance(error, Interrupted):
            with suppress(OSError):  # the job's log tells it in any case
                note_failure(config.paths, job.job_id, str(error).splitlines()[0])
        raise


def _run_agent(config: Config, view: View, job: JobEnvironment) -> int:
    per_worker = config.slurm.nodes_per_worker if config.slurm else 1
    if job.nodes != 1 if per_worker == 1 else job.nodes % per_worker:
        found = f"job {job.job_id} has {job.nodes} nodes, and each trial takes {per_worker} (slurm: nodes_per_worker)"
        legal = "1; ask for more jobs" if per_worker == 1 else f"a multiple of {per_worker}"
        raise ConfigError(Problem("slurm:batch:nodes", found, legal))
    if job.array_id is not None:
        array = JobArray(job.array_id, job.array_count, job.array_first, section=config.section)
        write_array_if_missing(config.paths, array)
    began = time.time()
    slots = slots_of_job(config, job)
    devices = "; ".join(slot.label for slot in slots)
    print(f"job {job.job_id} on {job.node}: python {sys.executable}, workers on {devices}", flush=True)

    confine_steps(config.paths)
    view.start()
    try:
        described = AgentJob(job.job_id, job.restarts, job_end_time(job))

        def explain(cause: str) -> str:
            """What SIGTERM was sent for, where that can be known."""
            if cause != PREEMPTED or (described.deadline is not None and time.time() >= described.deadline):
                return cause
            return STOPPED_BY_USER if is_cancelled_by_user(config.paths, job) else cause

        ending = Agent(
            config,
            slots,
            view,
            causes=causes_of_signals(config),
            job=described,
            query_job_state=SlurmJobStates(config.paths),
            explain_cause=explain,
        ).run()
    finally:
        view.stop()

    return _go_on(job, ending, began)


def _go_on(job: JobEnvironment, ending: Ending, began: float) -> int:
    """Queue the job again, or submit others, where its time ran out before the study did. Returns the exit code."""
    config, myself = ending.config, EndingJob(job.job_id, job.restarts)
    keeps = config.slurm is not None and config.slurm.keep
    left = config.optuna.n_trials - ending.snapshot.counts.finished
    if ending.cause == STOPPED_BY_USER:
        note_cancelled(config, job.job_id)
    lost_node = (ending.cause or "").startswith(NODE_LOST)
    reason = ending.cause if lost_node else "its time is over"
    # With too little time for another trial an agent ends before its walltime.
    had_no_time = ending.cause == WALLTIME or (keeps and ending.cause is None and ending.out_of_time)
    if not (had_no_time or lost_node) or left <= 0 or ending.snapshot.ended or ending.asked_to_end:
        return ExitCode.DONE

    # A lost node says nothing of whether another run would get further; optuna: max_interruptions is the limit there.
    stuck = None if lost_node else _reason_to_get_no_further(config, ending, began)
    refused = stuck or _reason_not_to_requeue(config, job)
    if refused is None and ending.cause is None:
        refused = "its time is not over"
    if keeps and stuck is None:
        print(f"job {job.job_id}: {submit_missing(config, myself, stays=refused is None)}", flush=True)
    if refused is None:
        print(f"job {job.job_id}: {reason}, {left} trials are left; asking SLURM to queue it again", flush=True)
        refused = requeue_job(job)
        if refused is None:
            return ExitCode.DONE
        if keeps:
            print(f"job {job.job_id}: {submit_missing(config, myself, stays=False)}", flush=True)
    if keeps and stuck is None:
        return ExitCode.DONE
    raise StudyFailed(
        f"job {job.job_id}: {reason}, {left} trials are left, and it is not queued again: {refused}\n"
        f"    Where no other job of the study goes on: aimlhpo submit {config.paths.save_path}"
    )


def slots_of_job(config: Config, job: JobEnvironment) -> list[Slot]:
    """The job's slots: what SLURM says of GPUs is believed, also where the objective does not use them.

    Each node of a job has as many GPUs and CPUs as the agent's. Raises DeviceError.
    """
    section = config.slurm
    per_worker, workers = (section.nodes_per_worker, section.workers_per_job) if section else (1, None)
    if workers is not None and per_worker > 1:
        workers //= job.nodes // per_worker
    gpus = list(job.gpus or ()) if job.gpus is not None or not config.optuna.gpu else visible_gpus()
    try:
        slots = plan_slots(
            gpus,
            cuda=config.optuna.gpu,
            workers=workers,
            trials_per_gpu=section.most_trials_per_gpu if section else 1,
            measured=section.packs if section else False,
            gpus_per_worker=section.gpus_per_worker if section else 1,
            n_cpus=job.cpus,
        )
    except DeviceError as error:
        raise DeviceError(f"job {job.job_id} on {job.node}: {error}") from error
    if section is None or per_worker == 1:
        return slots
    names, addresses = nodes_of_job(job.node)
    if len(names) != job.nodes:
        raise DeviceError(
            f"job {job.job_id} on {job.node}: it has {job.nodes} nodes, and SLURM names {len(names)}.\n"
            "    `scontrol show hostnames` has to work in the job: with a container, bind SLURM's programs into it."
        )
    words = shlex.split(section.python or "")
    python = words if len(words) > 1 else ()  # a container's, for example: only its command leads to this Python
    return spread_over_nodes(slots, names, addresses, per_worker, STEP, python)


def confine_steps(paths: StudyPaths) -> None:
    """Have what a training starts with srun stay in its slot, beside the steps of other slots.

    SLURM gives a step all of the job, GPUs included, and makes the next step wait for its end. A task prolog has the
    last word on a task's environment. The user's own variables stay as they are.
    """
    with suppress(OSError):  # the disk is full: srun is as it would be without us
        paths.create()
        replace_file(paths.task_prolog, _TASK_PROLOG, 0o700, lasting=False)
        os.environ.setdefault("SLURM_OVERLAP", "1")
        os.environ.setdefault("SLURM_TASK_PROLOG", str(paths.task_prolog))


def causes_of_signals(config: Config) -> dict[signal.Signals, str]:
    """What signals mean to the agent, with the one that the study's own `batch: signal` asks for."""
    given = config.slurm.batch.get("signal") if config.slurm else None
    announced = parse_signal_option(given) if isinstance(given, str) else None
    return _CAUSES if announced is None else {**_CAUSES, announced: WALLTIME}


def is_cancelled_by_user(paths: StudyPaths, job: JobEnvironment) -> bool:
    """Whether the job is cancelled, by `aimlhpo stop` or scancel, as far as that can be known.

    It is if it is going for good, and not because others came first: preempted jobs are queued again, or marked.
    """
    if job.array_id is not None and is_stopped(paths, job.array_id):
        return True
    answer = run_program("scontrol", "show", "job", job.job_id, timeout=_CANCEL_TIMEOUT)
    shown = dict(field.split("=", 1) for field in answer.out.split() if "=" in field)
    ends = shown.get("JobState") in ("COMPLETING", "CANCELLED") and shown.get("Restarts") == str(job.restarts)
    return answer.ok and ends and shown.get("PreemptTime") == "None"


def requeue_job(job: JobEnvironment, timeout: float = PROGRAM_TIMEOUT) -> str | None:
    """Put this job back into the queue, as the last thing it does: SLURM then ends it.

    Returns None when SLURM took it, else SLURM's reason not to. Takes about `timeout` seconds at most.
    """
    deadline, refused = time.monotonic() + timeout, ""
    known = query_jobs([job.raw_id])
    if known is not None and is_job_alive(known, job.raw_id, job.restarts) is not True:
        return "SLURM is ending it already"  # queued again, a job that the user cancelled would come back
    for _ in range(_REQUEUE_ATTEMPTS):
        answer = run_program("scontrol", "requeue", job.job_id, timeout=max(1.0, deadline - time.monotonic()))
        if answer.ok:
            return None
        refused = answer.message or f"scontrol requeue ended with {answer.code}"
        if not answer.is_unreachable or time.monotonic() > deadline:
            break
    return refused


def _reason_not_to_requeue(config: Config, job: JobEnvironment) -> str | None:
    """Why the job is not to be queued again: the user's limits."""
    section = config.slurm
    if section is None or not section.requeue:
        return "slurm: requeue is false"
    if section.max_requeues is not None and job.restarts >= section.max_requeues:
        return f"slurm: max_requeues is {section.max_requeues}"
    return None


def _reason_to_get_no_further(config: Config, ending: Ending, began: float) -> str | None:
    """Why another job would only do again what this one could not finish."""
    if ending.trials_run or _has_written_since(config.paths.checkpoints, began):
        return None
    return (
        "it finished no trial and wrote no checkpoint, so another run of it would get no further.\n"
        "    Give it more time (slurm: batch: time), or let the objective keep checkpoints (checkpoint_dir)"
    )


def _has_written_since(directory: Path, began: float) -> bool:
    for folder, _, files in os.walk(directory):
        for name in files:
            try:
                if os.stat(os.path.join(folder, name)).st_mtime >= began - _CLOCK_MARGIN:
                    return True
            except FileNotFoundError:  # replaced meanwhile: somebody writes
                return True
    return False
