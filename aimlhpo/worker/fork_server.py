"""Whether a process that has imported an objective can be forked, or what stands in the way.

A fork copies the forking thread alone, and shares what is open: a lock that another thread held stays locked for ever,
a GPU's context is void, a file's position moves under several readers. So a process is forked only where its imports
have left nothing of the kind.
`python -m aimlhpo.worker.fork_server FD AGENT OBJECTIVE`: imports the objective; an agent's workers are forked of it.

A worker is forked twice, the process between ending at once, so that it becomes a child of the agent (which asks the
kernel for it): the agent waits for it, and dies with it, as if it had started it. Where the imports have left
something that a fork would break, the template becomes the first worker itself and makes no other.
"""

from __future__ import annotations

import ctypes
import gc
import json
import os
import socket
import sys
import time
import warnings
from contextlib import suppress
from multiprocessing.connection import Connection
from pathlib import Path
from typing import NamedTuple

from aimlhpo.objective.base import BaseObjective
from aimlhpo.objective.messages import LoadFailed, Started
from aimlhpo.processes import die_with_parent
from aimlhpo.worker.provenance import provenance
from aimlhpo.worker.worker import import_class, run_worker

_OWN = Path("/proc/self")
_SAFE_THREADS = frozenset({"jemalloc_bg_thd"})  # jemalloc (in pyarrow) starts it anew on both sides of a fork
_SAFE_FILES = ("/dev/null", "/dev/urandom", "/dev/random")


def open_files() -> dict[int, str]:
    """What this process has open, by descriptor."""
    found: dict[int, str] = {}
    for name in os.listdir(_OWN / "fd"):
        with suppress(OSError):  # the one that listed the directory
            found[int(name)] = os.readlink(_OWN / "fd" / name)
    return found


def obstacle(before: dict[int, str]) -> str | None:
    """What the imports have left that a fork would break; `before` is what was open before them."""
    _settle_thread_pools()
    if threads := _threads():
        return f"started threads ({', '.join(sorted(threads))})"
    if files := [file for number, file in open_files().items() if before.get(number) != file and not _is_safe(file)]:
        return f"left open: {', '.join(sorted(files))}"
    if _cuda_is_initialized():
        return "started to use the GPU"
    return "started processes" if _children() else None


def forked() -> int:
    """`os.fork`, without Python's warning of threads: `obstacle` has looked at them."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        return os.fork()


def _settle_thread_pools() -> None:
    """Fork once for nothing: OpenBLAS, which starts threads when NumPy is imported, ends them before any fork."""
    child = forked()
    if child == 0:
        os._exit(0)
    os.waitpid(child, 0)


def _threads() -> set[str]:
    others = [task for task in (_OWN / "task").iterdir() if int(task.name) != os.getpid()]
    return {(task / "comm").read_text().strip() for task in others} - _SAFE_THREADS


def _is_safe(file: str) -> bool:
    return file in _SAFE_FILES or file == f"/proc/{os.getpid()}/fd"


def _cuda_is_initialized() -> bool:
    torch = sys.modules.get("torch")
    return torch is not None and bool(torch.cuda.is_initialized())


def _children() -> bool:
    with suppress(OSError):  # a kernel without the list
        return bool((_OWN / "task" / str(os.getpid()) / "children").read_text().strip())
    return False


_MOST_BYTES = 1 << 16  # of a slot's environment, as JSON
_LOOK = 0.0005  # seconds between two looks at who the parent is


class ForkRequest(NamedTuple):
    """A worker to make: its end of the pipe to the agent, its log, and what its slot adds to the environment."""

    connection: int
    log: int
    environment: dict[str, str]


class ForkServerLoop:
    """The loaded objective, and the socket on which the agent asks for workers."""

    def __init__(self, requests: socket.socket, agent: int, imported: type[BaseObjective] | LoadFailed | None) -> None:
        self._requests, self._agent, self._imported = requests, agent, imported

    def serve(self, obstacle: str | None) -> Connection | None:
        """Make workers. Returns in each of them, with its pipe; and here with None, when the agent is gone."""
        while (request := self._next()) is not None:
            if isinstance(self._imported, LoadFailed):
                self._tell(self._imported, request)
            elif obstacle is not None or self._fork():
                return self._become(request)
            os.close(request.connection)
            os.close(request.log)
        return None

    def _next(self) -> ForkRequest | None:
        data, descriptors, _, _ = socket.recv_fds(self._requests, _MOST_BYTES, 2, socket.MSG_CMSG_CLOEXEC)
        if not data:
            return None
        connection, log = descriptors
        return ForkRequest(connection, log, json.loads(data))

    def _tell(self, failure: LoadFailed, request: ForkRequest) -> None:
        with suppress(OSError):
            Connection(os.dup(request.connection)).send(failure)

    def _fork(self) -> bool:
        """Whether this is the new worker, whose parent is the agent by now."""
        ctypes.CDLL(None).fflush(None)  # what C libraries have not written yet would be written twice
        try:
            between = forked()
        except OSError:  # no memory, or too many processes: the pipe's end tells the agent
            return False
        if between != 0:
            os.waitpid(between, 0)
            return False
        between = os.getpid()
        try:
            if forked() != 0:
                os._exit(0)
        except OSError:
            os._exit(1)
        while os.getppid() == between:
            time.sleep(_LOOK)
        os.setsid()
        die_with_parent(self._agent)
        return True

    def _become(self, request: ForkRequest) -> Connection:
        """Turn this process into the worker that was asked for."""
        connection = Connection(request.connection)
        with suppress(OSError):  # not wanted any more: the pipe's end tells
            connection.send(Started(os.getpid()))
        self._requests.close()
        os.dup2(request.log, 1)
        os.dup2(request.log, 2)
        os.close(request.log)
        os.environ.update(request.environment)
        _reseed()
        return connection


def _reseed() -> None:
    """Give NumPy's global generator a state of this process's own; Python's `random` does so itself after a fork."""
    numpy = sys.modules.get("numpy")
    if numpy is not None:
        numpy.random.seed()


def main(requests: socket.socket, agent: int, objective: str) -> None:
    before = open_files()
    imported = import_class(objective) if objective else None
    standing = None if isinstance(imported, LoadFailed) else obstacle(before)
    if standing is not None:
        print(f"{objective}: importing it {standing}, so each worker imports it itself", flush=True)
    elif objective and not isinstance(imported, LoadFailed):
        provenance(objective)  # what it looks up is kept for all workers
    gc.collect()
    gc.freeze()  # collections in the workers leave the shared pages alone
    connection = ForkServerLoop(requests, agent, imported).serve(standing)
    if connection is not None:
        run_worker(connection, None if isinstance(imported, LoadFailed) else imported)


if __name__ == "__main__":
    die_with_parent(int(sys.argv[2]))
    main(socket.socket(fileno=int(sys.argv[1])), int(sys.argv[2]), sys.argv[3])
