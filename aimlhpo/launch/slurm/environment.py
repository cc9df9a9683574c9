"""What an agent's job knows of itself: SLURM's word first, and nothing outside a job."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Mapping
from dataclasses import dataclass

from aimlhpo.launch.slurm import program, queue

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


def read(environment: Mapping[str, str] = os.environ) -> JobEnvironment | None:
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
    answer = program.ask("squeue", "--noheader", f"--jobs={job.raw_id}", "--Format=EndTime:24")
    end = _number(answer.out.strip()) if answer.ok else None
    # Partitions without a limit get one of a year; a job's agent need not plan for that.
    return float(end) if end and end < time.time() + 300 * 86400 else None


def requeue(job: JobEnvironment, patience: float = program.TIMEOUT) -> str | None:
    """Put this job back into the queue, as the last thing it does: SLURM then ends it.

    None when SLURM took it, else SLURM's reason not to. Takes `patience` seconds at most.
    """
    deadline, words = time.monotonic() + patience, ""
    if _is_ending(job):
        return "SLURM is ending it already"  # queued again, a job that the user cancelled would come back
    for _ in range(_ATTEMPTS):
        answer = program.ask("scontrol", "requeue", job.job_id, timeout=max(1.0, deadline - time.monotonic()))
        if answer.ok:
            return None
        words = answer.words or f"scontrol requeue ended with {answer.code}"
        if not program.is_silence(answer) or time.monotonic() > deadline:
            break
    return words


def _is_ending(job: JobEnvironment) -> bool:
    known = queue.ask([job.raw_id])
    return known is not None and queue.alive(known, job.raw_id, job.restarts) is not True


def _gpus(listed: str) -> tuple[str, ...]:
    """The names up to the first that hides the rest, as CUDA reads the variable."""
    names = [name.strip() for name in listed.split(",")]
    hidden = next((position for position, name in enumerate(names) if name in _NO_GPU), len(names))
    return tuple(names[:hidden])


def _number(text: str | None) -> int | None:
    match = _FIRST_NUMBER.match(text or "")
    return int(match[0]) if match else None
