"""The GPUs that this process may use, and the slots they make. Imports no framework."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from aimlhpo.errors import DeviceError

_HIDDEN = ("", "-1", "NoDevFiles")
_QUERY_TIMEOUT = 20  # seconds


@dataclass(frozen=True)
class Slot:
    """One place where a trial can run.

    `gpus` are names as CUDA_VISIBLE_DEVICES takes them (indices, UUIDs, MIG names); none means the CPU. `threads` is
    the number of CPU threads that its worker should use, None where nothing is known of the CPUs' share.
    """

    index: int
    gpus: tuple[str, ...] = ()
    threads: int | None = None

    @property
    def device(self) -> str:
        """What the objective gets: within a worker its first GPU is always number 0."""
        return "cuda:0" if self.gpus else "cpu"

    @property
    def label(self) -> str:
        """The device as people know it from outside the worker."""
        return "gpu " + ",".join(self.gpus) if self.gpus else "cpu"

    def environment(self) -> dict[str, str]:
        """What a worker in this slot needs in its environment."""
        variables = {"CUDA_VISIBLE_DEVICES": ",".join(self.gpus)} if self.gpus else {}
        return variables | (_thread_variables(self.threads) if self.threads else {})


def _thread_variables(threads: int) -> dict[str, str]:
    """Respect what the user has set; else share the CPUs out."""
    names = [
        "OMP_NUM_THREADS",
        "MKL_NUM_THREADS",
        "OPENBLAS_NUM_THREADS",
        "NUMEXPR_NUM_THREADS",
        "TF_NUM_INTRAOP_THREADS",
    ]
    return {name: str(threads) for name in names if name not in os.environ}


def visible_gpus(environment: Mapping[str, str] = os.environ) -> list[str]:
    """The GPUs this process was given: CUDA_VISIBLE_DEVICES where it is set, else all that nvidia-smi lists."""
    listed = environment.get("CUDA_VISIBLE_DEVICES")
    if listed is None:
        return _all_gpus()
    names = [name.strip() for name in listed.split(",")]
    hidden = next((position for position, name in enumerate(names) if name in _HIDDEN), len(names))
    return names[:hidden]


def _all_gpus() -> list[str]:
    if shutil.which("nvidia-smi") is None:
        return []
    command = ["nvidia-smi", "--query-gpu=index", "--format=csv,noheader"]
    try:
        answer = subprocess.run(command, capture_output=True, text=True, timeout=_QUERY_TIMEOUT, check=True)
    except (OSError, subprocess.SubprocessError):
        return []
    return answer.stdout.split()


def cpus() -> int:
    """The CPUs that this process may run on."""
    return len(os.sched_getaffinity(0))


def plan_slots(
    *,
    gpu: bool,
    workers: int | None = None,
    trials_per_gpu: int = 1,
    gpus_per_worker: int = 1,
    gpus: Sequence[str] | None = None,
    n_cpus: int | None = None,
) -> list[Slot]:
    """Share the GPUs and CPUs out among workers: one worker a GPU, or as many as `workers` says.

    Raises DeviceError where GPUs were asked for and there are not enough.
    """
    found = list(visible_gpus() if gpus is None else gpus) if gpu else []
    if gpu and len(found) < gpus_per_worker:
        raise DeviceError(_too_few(found, gpus_per_worker))
    groups = [tuple(found[start : start + gpus_per_worker]) for start in range(0, len(found), gpus_per_worker)]
    groups = [group for group in groups if len(group) == gpus_per_worker] if gpu else [()]
    number = workers or len(groups) * (trials_per_gpu if gpu else 1)
    threads = max(1, (n_cpus or cpus()) // number)
    return [Slot(index, groups[index % len(groups)], threads) for index in range(number)]


def _too_few(found: Sequence[str], wanted: int) -> str:
    listed = os.environ.get("CUDA_VISIBLE_DEVICES")
    source = f"CUDA_VISIBLE_DEVICES is {listed!r}" if listed is not None else "nvidia-smi lists none"
    if found:
        source = f"only {len(found)} of the {wanted} that gpus_per_worker asks for ({', '.join(found)})"
    return (
        f"optuna: gpu: is true, and there is no GPU to use: {source}.\n"
        "    Run where there is one (in a SLURM job: batch: gres: gpu:1), or set gpu: false to train on the CPU."
    )
