"""The GPUs and CPUs that this process may use, shared out to slots. Imports no framework, and initializes no GPU."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import takewhile
from typing import TYPE_CHECKING

from aimlhpo.errors import DeviceError
from aimlhpo.objective.messages import NodeGroup
from aimlhpo.processes import THREAD_VARIABLES
from aimlhpo.worker.ranks import free_port, rank_environment

if TYPE_CHECKING:
    from aimlhpo.config.schema import Config

_HIDDEN = ("", "-1", "NoDevFiles")
_QUERY_TIMEOUT = 20  # seconds

SLOT_GPUS = "AIMLHPO_GPUS"
"""The variable that repeats a slot's CUDA_VISIBLE_DEVICES, where SLURM's srun does not replace it."""


@dataclass(frozen=True)
class Slot:
    """One place where a trial can run.

    Attributes:
        index: its number in the agent, from 0.
        gpus: names as CUDA_VISIBLE_DEVICES takes them: indices, UUIDs, MIG names.
        cuda: whether the objective is told to use the GPUs.
        threads: the slot's share of the CPUs.
        ranks: the number of processes that run one trial.
        nodes: the nodes that these processes share, where they are not all on the agent's; else None.
        agent_address: where the agent's node is reached by others, where rank 0 runs on another one; else None.
        gpu_share: how many GPUs a trial here costs: less than one each where slots share them.
        on_demand: whether it is used only once there is found to be room for it (`trials_per_gpu: auto`).
    """

    index: int
    gpus: tuple[str, ...] = ()
    cuda: bool = False
    threads: int = 1
    ranks: int = 1
    gpu_share: float = 0.0
    on_demand: bool = False
    nodes: NodeGroup | None = None
    agent_address: str | None = None

    @property
    def device(self) -> str:
        """What the objective gets: within a worker its first GPU is always number 0."""
        return "cuda:0" if self.cuda else "cpu"

    @property
    def label(self) -> str:
        """The device as people know it from outside the worker."""
        devices = "gpu " + ",".join(self.gpus) if self.gpus else "cpu"
        return f"{devices} of {', '.join(self.nodes.names)}" if self.nodes else devices

    @property
    def all_gpus(self) -> float:
        """How many GPUs it has, on all of its nodes, whoever shares them."""
        return float(len(self.gpus) * (len(self.nodes.names) if self.nodes else 1))

    def shares_gpus_with(self, other: Slot) -> bool:
        """Whether there is a GPU in both; slots have all of their nodes in common, or none."""
        names, others = (slot.nodes.names if slot.nodes else () for slot in (self, other))
        return names == others and bool(set(self.gpus) & set(other.gpus))

    def environment(self, given: Mapping[str, str] = os.environ) -> dict[str, str]:
        """What a worker in this slot needs in its environment; numbers of threads that the user set are kept.

        With several ranks it is rank 0, from the start: objectives ask for that when they are imported.
        """
        share = str(max(1, self.threads // (self.nodes.ranks_per_node if self.nodes else self.ranks)))
        needed = {name: share for name in THREAD_VARIABLES if name not in given}
        if self.gpus:
            needed["CUDA_VISIBLE_DEVICES"] = ",".join(self.gpus)
        if "SLURM_JOB_ID" in given:
            needed |= {"SLURM_CPUS_PER_TASK": share, SLOT_GPUS: ",".join(self.gpus)}
        if self.ranks > 1:
            needed.update(rank_environment(0, self.ranks, free_port(), self.nodes))
        return needed


def visible_gpus() -> list[str]:
    """The GPUs this process was given: CUDA_VISIBLE_DEVICES where it is set, else all that nvidia-smi lists."""
    listed = os.environ.get("CUDA_VISIBLE_DEVICES")
    if listed is not None:  # believed as it stands, up to the first name that hides the rest
        names = [name.strip() for name in listed.split(",")]
        return list(takewhile(lambda name: name not in _HIDDEN, names))
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
    gpus: Sequence[str],
    *,
    cuda: bool,
    workers: int | None = None,
    trials_per_gpu: int = 1,
    measured: bool = False,
    gpus_per_worker: int = 1,
    n_cpus: int | None = None,
) -> list[Slot]:
    """Share GPUs and CPUs out to slots.

    There are `workers` slots where that is given; else `trials_per_gpu` for every `gpus_per_worker` GPUs, and a single
    one without GPUs. With `measured`, all but the first of each GPU are `on_demand`, and the first costs all of it.
    Raises DeviceError where `cuda` is asked for and GPUs are missing.
    """
    if gpus and len(gpus) < gpus_per_worker:
        raise DeviceError(
            f"slurm: gpus_per_worker is {gpus_per_worker}, and there are only {len(gpus)} GPUs ({', '.join(gpus)}).\n"
            "    Ask for more (batch: gres: gpu:N), or make gpus_per_worker smaller."
        )
    if cuda and not gpus:
        listed = os.environ.get("CUDA_VISIBLE_DEVICES")
        seen = "nvidia-smi lists none" if listed is None else f"CUDA_VISIBLE_DEVICES is {listed!r}"
        raise DeviceError(
            f"there is no GPU to use, though gpu is true: {seen}.\n"
            "    Run where there is one (in a SLURM job: batch: gres: gpu:1), or set gpu: false to train on the CPU."
        )
    whole = len(gpus) - len(gpus) % gpus_per_worker
    groups = [tuple(gpus[start : start + gpus_per_worker]) for start in range(0, whole, gpus_per_worker)] or [()]
    number = workers or len(groups) * (trials_per_gpu if gpus else 1)
    threads = max(1, (n_cpus or cpus()) // number)
    measured = measured and not workers
    share = whole / (len(groups) if measured else max(number, len(groups)))
    always = len(groups) if measured else number
    return [
        Slot(index, groups[index % len(groups)], cuda, threads, gpus_per_worker, share, index >= always)
        for index in range(number)
    ]


def plan_local_slots(config: Config, workers: int | None) -> list[Slot]:
    """The slots of a run on this machine with `workers` workers; None: as many as GPUs allow, or one on the CPU.

    Raises DeviceError.
    """
    section = config.slurm
    if section and section.nodes_per_worker > 1:
        raise DeviceError(
            f"slurm: nodes_per_worker is {section.nodes_per_worker}, and this machine is one node.\n"
            "    Submit the study, without --local; or set nodes_per_worker: 1 to try it here."
        )
    gpu = config.optuna.gpu
    return plan_slots(
        visible_gpus() if gpu else [],
        cuda=gpu,
        workers=workers,
        trials_per_gpu=section.most_trials_per_gpu if section else 1,
        measured=section.packs if section else False,
        gpus_per_worker=ranks_of(config),
    )


def spread_over_nodes(
    slots: Sequence[Slot],
    names: Sequence[str],
    addresses: Sequence[str],
    nodes_per_worker: int,
    start: Sequence[str],
    python: Sequence[str] = (),
) -> list[Slot]:
    """The slots of one node, made into slots of `nodes_per_worker` nodes each, as often as the job's nodes allow.

    The agent's node comes first; `slots` are what there is on it, and on each of the others. `start` and `python` are
    those of a NodeGroup.
    """
    gpus = list(dict.fromkeys(gpu for slot in slots for gpu in slot.gpus))
    made: list[Slot] = []
    for begin in range(0, len(names) - nodes_per_worker + 1, nodes_per_worker):
        chosen = slice(begin, begin + nodes_per_worker)
        for slot in slots:
            nodes = NodeGroup(
                tuple(names[chosen]),
                tuple(addresses[chosen]),
                slot.ranks,
                tuple(start),
                tuple(python),
                tuple(gpus.index(gpu) for gpu in slot.gpus),
                slot.environment(),
            )
            made.append(
                replace(
                    slot,
                    index=len(made),
                    ranks=slot.ranks * nodes_per_worker,
                    gpu_share=slot.gpu_share * nodes_per_worker,
                    nodes=nodes,
                    agent_address=addresses[0] if begin else None,
                )
            )
    return made


def ranks_of(config: Config) -> int:
    """The number of processes that run one trial."""
    return config.slurm.gpus_per_worker * config.slurm.nodes_per_worker if config.slurm else 1
