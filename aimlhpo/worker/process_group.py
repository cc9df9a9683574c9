"""What a framework is told of the processes that train together: torchrun's variables in each rank, else nothing.

A worker lives in a SLURM job, whose variables describe tasks and steps that have nothing to do with a trial's ranks.
Frameworks believe them all the same: Lightning takes the rank from SLURM_PROCID and sets signal handlers that requeue
the job, JAX and TensorFlow look for the step's other tasks, a library built with MPI waits for them. So they are taken
out, and what describes the job alone (SLURM_JOB_ID, SLURM_JOB_NODELIST, SLURM_ARRAY_TASK_ID ...) stays.
"""

from __future__ import annotations

import errno
import os
import random
import re
import socket
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from aimlhpo.objective.messages import NodeGroup

_OF_PROCESSES = re.compile(
    r"((LOCAL_|GROUP_|ROLE_|NODE_)?RANK|(LOCAL_|GROUP_|ROLE_)?WORLD_SIZE|MASTER_(ADDR|PORT)|TORCHELASTIC_\w+"
    r"|JAX_(COORDINATOR_\w+|LOCAL_DEVICE_IDS|NUM_PROCESSES|PROCESS_ID)|TF_CONFIG|HOROVOD_(CROSS_|LOCAL_)?(RANK|SIZE)"
    r"|SLURM_(PROCID|LOCALID|NODEID|GTIDS|NPROCS|NTASKS\w*|STEP\w*|TASK_PID|TRES_PER_TASK|SRUN_\w+|DISTRIBUTION"
    r"|LAUNCH_NODE_IPADDR|(CPU|MEM)_BIND\w*)"
    r"|PMI2?_\w+|PMIX_(?!MCA_)\w+|PALS_\w+|OMPI_(COMM_WORLD|APP_CTX|UNIVERSE|MCA_(orte|ess))_\w+|MV2_COMM_WORLD_\w+"
    r"|MPI_LOCAL(NRANKS|RANKID)|JSM_NAMESPACE_\w+|FLUX_TASK_\w+)"
)

_CLIENTS = Path("/proc/sys/net/ipv4/ip_local_port_range")
_FIRST, _ENOUGH, _TRIES = 10000, 1000, 50  # ports
_RANDOM = random.SystemRandom()  # not the global generator: user code seeds that one alike in all workers


def without_process_group(given: Mapping[str, str]) -> dict[str, str]:
    """An environment without what the launcher of other processes has put into it."""
    return {name: value for name, value in given.items() if not _OF_PROCESSES.fullmatch(name)}


class ProcessGroupVariables:
    """What this process's own environment says of a process group.

    What the objective has set by itself when it was imported stays; what a framework has left in an earlier trial goes.
    """

    def __init__(self) -> None:
        self._own = {name: value for name, value in os.environ.items() if _OF_PROCESSES.fullmatch(name)}

    def enter(self, given: Mapping[str, str]) -> None:
        """Say at the start of a trial what `rank_environment` gives; nothing where this is the only process."""
        for name in os.environ.keys() - without_process_group(os.environ).keys():
            del os.environ[name]
        os.environ.update({**self._own, **given})


def rank_environment(rank: int, ranks: int, port: int, nodes: NodeGroup | None = None) -> dict[str, str]:
    """What torchrun gives each of `ranks` processes that meet at `port`, on this node or on several.

    Empty where there is one process. NODE_RANK, which some frameworks read, is there where there are several nodes.
    """
    if ranks == 1:
        return {}
    of_the_rank = dict.fromkeys(("RANK", "ROLE_RANK"), str(rank))
    of_all = dict.fromkeys(("WORLD_SIZE", "ROLE_WORLD_SIZE"), str(ranks))
    on_a_node = nodes.ranks_per_node if nodes else ranks
    node = str(rank // on_a_node)
    return {
        **of_the_rank,
        **of_all,
        "LOCAL_RANK": str(rank % on_a_node),
        "LOCAL_WORLD_SIZE": str(on_a_node),
        "ROLE_NAME": "default",
        "GROUP_RANK": node,
        "GROUP_WORLD_SIZE": str(ranks // on_a_node),
        **({"NODE_RANK": node} if nodes else {}),
        "MASTER_ADDR": nodes.addresses[0] if nodes else "127.0.0.1",
        "MASTER_PORT": str(port),
        "TORCHELASTIC_RUN_ID": "aimlhpo",
        "TORCHELASTIC_RESTART_COUNT": "0",
        "TORCHELASTIC_MAX_RESTARTS": "0",
        "TORCHELASTIC_USE_AGENT_STORE": "False",
        "TORCH_NCCL_ASYNC_ERROR_HANDLING": os.environ.get("TORCH_NCCL_ASYNC_ERROR_HANDLING", "1"),
    }


def free_port() -> int:
    """A port that nobody has now, and that the kernel gives to no client until rank 0 comes to listen on it."""
    for port in _RANDOM.sample(_ports_of_no_client(), _TRIES):
        with socket.socket() as probe, suppress(OSError):
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(("", port))
            return port
    raise OSError(errno.EADDRINUSE, f"none of {_TRIES} TCP ports is free for the ranks to meet at")


def _ports_of_no_client() -> Sequence[int]:
    """Those below or above the range that clients get; all where next to none are left, or nothing is known of it."""
    low = high = 0
    with suppress(OSError, ValueError):
        low, high = map(int, _CLIENTS.read_text().split())
    found = [port for port in range(_FIRST, 1 << 16) if not low <= port <= high]
    return found if len(found) >= _ENOUGH else range(_FIRST, 1 << 16)
