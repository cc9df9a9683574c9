"""The fork server's own program: it imports the objective once, and all workers of an agent are forked of it.

It is started by `aimlhpo.agent.fork_server.ForkServer`, as early as a command knows that it will need an objective. On
their socket the two say, in this order:

    parent -> server   a LoadRequest: the objective's file, and what the first slot adds to the environment
    server -> parent   null, or the ObjectiveError that importing the file has raised
    parent -> server   a ForkRequest for each worker: its end of the pipe to the agent, its log, its slot's environment

A worker is forked twice, and the process in between ends at once, so that the worker becomes a child of the agent
(which asks the kernel for that): the agent waits for it, and it dies with the agent, as if the agent had started it.

A fork copies the forking thread alone and shares what is open: a lock that another thread held stays locked for ever,
a GPU's context is void, a file's position moves under several readers. Where the imports have left anything of the
kind, nothing is forked: the fork server becomes the first worker itself, and the others import the objective again.
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
from collections.abc import Mapping
from contextlib import suppress
from multiprocessing.connection import Connection
from pathlib import Path

from aimlhpo.errors import ObjectiveError
from aimlhpo.objective.base import BaseObjective, load_objective, provenance
from aimlhpo.objective.messages import LoadFailed, Started
from aimlhpo.processes import die_with_parent
from aimlhpo.worker.worker import run_worker

MESSAGE_BYTES = 1 << 17
"""The longest message on the socket."""

_DETAIL_CHARACTERS = 16_000  # of a traceback; six bytes each at most, as JSON
_OWN = Path("/proc/self")
_SAFE_THREADS = frozenset({"jemalloc_bg_thd"})  # jemalloc (in pyarrow) starts it anew on both sides of a fork
_SAFE_FILES = ("/dev/null", "/dev/urandom", "/dev/random")
_POLL_SECONDS = 0.0005


class ForkServerLoop:
    """Imports the objective, then forks workers for as long as the parent asks for them."""

    def __init__(self, requests: socket.socket, parent: int) -> None:
        self._requests, self._parent = requests, parent
        self._imported: type[BaseObjective] | LoadFailed | None = None
        self._obstacle: str | None = None

    def run(self) -> None:
        """Serve the parent to its end; in each worker that is forked, run the worker instead."""
        if not self._load():
            return
        gc.collect()
        gc.freeze()  # collections in the workers leave the shared pages alone
        connection = self._serve()
        if connection is not None:
            run_worker(connection, None if isinstance(self._imported, LoadFailed) else self._imported)

    def _load(self) -> bool:
        """Import the objective that the parent names, and answer; False where the parent ends without naming one.

        A study with `command` has no objective to import.
        """
        data = self._requests.recv(MESSAGE_BYTES)
        if not data:
            return False
        objective, environment = json.loads(data)
        os.environ.update(environment)  # libraries read numbers of threads and visible GPUs when they are imported
        before = open_files()
        failure: ObjectiveError | None = None
        try:
            if objective:
                self._imported = load_objective(objective)
                self._obstacle = obstacle(before)
        except ObjectiveError as error:
            failure, self._imported = error, LoadFailed(str(error), "")
        if self._obstacle is not None:
            print(f"{objective}: importing it {self._obstacle}, so each worker imports it itself", flush=True)
        answer = None if failure is None else [failure.message, failure.detail[-_DETAIL_CHARACTERS:]]
        self._requests.send(json.dumps(answer).encode())
        if objective and failure is None and self._obstacle is None:
            provenance(objective)  # what it looks up is kept for all workers
        return True

    def _serve(self) -> Connection | None:
        """Fork workers. Returns in each of them, with its pipe; and here with None, when the parent is gone."""
        while True:
            data, descriptors, _, _ = socket.recv_fds(self._requests, MESSAGE_BYTES, 2, socket.MSG_CMSG_CLOEXEC)
            if not data:
                return None
            pipe, log = descriptors
            if isinstance(self._imported, LoadFailed):
                with suppress(OSError):
                    Connection(os.dup(pipe)).send(self._imported)
            elif self._obstacle is not None or self._fork():
                break
            os.close(pipe)
            os.close(log)
        connection = Connection(pipe)
        with suppress(OSError):  # not wanted any more: the pipe's end tells
            connection.send(Started(os.getpid()))
        self._requests.close()
        os.dup2(log, 1)
        os.dup2(log, 2)
        os.close(log)
        os.environ.update(json.loads(data))
        numpy = sys.modules.get("numpy")
        if numpy is not None:  # a state of this process's own; Python's `random` sees to that itself after a fork
            numpy.random.seed()
        return connection

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
            time.sleep(_POLL_SECONDS)
        os.setsid()
        die_with_parent(self._parent)
        return True


def obstacle(before: Mapping[int, str]) -> str | None:
    """What the imports have left that a fork would break; `before` is what was open before them.

    Initializing CUDA opens the GPU's device files, also where torch does not count it as initialized.
    """
    # Fork once for nothing: OpenBLAS, which starts threads when NumPy is imported, ends them before any fork.
    if (child := forked()) == 0:
        os._exit(0)
    os.waitpid(child, 0)
    others = [task for task in (_OWN / "task").iterdir() if int(task.name) != os.getpid()]
    if threads := {(task / "comm").read_text().strip() for task in others} - _SAFE_THREADS:
        return f"started threads ({', '.join(sorted(threads))})"
    own_listing = f"/proc/{os.getpid()}/fd"
    opened = (file for number, file in open_files().items() if before.get(number) != file)
    if files := [file for file in opened if file not in _SAFE_FILES and file != own_listing]:
        return f"left open: {', '.join(sorted(files))}"
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_initialized():
        return "started to use the GPU"
    with suppress(OSError):  # a kernel without the list
        if (_OWN / "task" / str(os.getpid()) / "children").read_text().strip():
            return "started processes"
    return None


def open_files() -> dict[int, str]:
    """What this process has open, by descriptor."""
    found: dict[int, str] = {}
    for name in os.listdir(_OWN / "fd"):
        with suppress(OSError):  # the one that listed the directory
            found[int(name)] = os.readlink(_OWN / "fd" / name)
    return found


def forked() -> int:
    """`os.fork`, without Python's warning of threads: `obstacle` has looked for them."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        return os.fork()
