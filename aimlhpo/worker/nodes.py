"""Processes of a trial on other nodes of the job: how they are started, heard and ended.

Whoever needs them (an agent for a worker, rank 0 for other ranks) starts a `NodeLauncher` beside itself, a process that
stands for them: it has the pipes, gets the signals, and ends as a worker has ended. The launcher runs one step of the
job, with one `NodeKeeper` on each node, which starts that node's processes and passes on what they and the launcher
send. Worker and ranks need not know of it.

    agent or rank 0 <- pipes -> NodeLauncher <- TCP -> NodeKeeper <- pipes -> worker or ranks

Keepers call the launcher back, and both prove that they know a secret that only the step's environment holds. What
sends messages here is no user code: the processes' own messages are passed on unread. When the connection ends, however
that comes, the keeper kills what it has started. A thread of its own serves each direction of each pipe and connection,
so that none waits for another; the main thread of either process decides.
"""

from __future__ import annotations

import os
import re
import resource
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing import AuthenticationError, Pipe
from multiprocessing.connection import Connection, answer_challenge, deliver_challenge
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import NoReturn

from aimlhpo.errors import DeviceError
from aimlhpo.objective.messages import NodeGroup, NodeLost, Setup
from aimlhpo.processes import adopt_orphans, kill_descendants, module_command
from aimlhpo.results.worker_log import WorkerLog
from aimlhpo.worker.devices import SLOT_GPUS, visible_gpus
from aimlhpo.worker.ranks import (
    NodesJoined,
    RankEnded,
    RankHandle,
    cause_of_end,
    free_port,
    rank_environment,
    ranks_here,
    start_rank,
    without_process_group,
)

LAUNCHER = "nodes"
"""The word for a launcher on the command line of `aimlhpo.worker`; a keeper has no words there."""

_ADDRESS, _KEY = "AIMLHPO_LAUNCHER", "AIMLHPO_LAUNCHER_KEY"  # variables of the step
_JOIN_SECONDS = 180.0  # that the step has to start on all nodes
_RETRY_SECONDS = 3.0  # between two tries to start it while SLURM is not there
_HANDSHAKE_SECONDS = 20.0  # that whoever connects has to prove that it knows the secret
_DRAIN_SECONDS = 1.0  # that what a process has sent has to come out of its pipe once it has ended
_TRIM_SECONDS = 5.0  # between two looks at the length of the logs
_LAST_LINES = 6
# A node that has lost its power sends nothing: after these seconds of silence the kernel asks, and gives up soon after.
_IDLE_SECONDS, _PROBE_SECONDS, _PROBES = 10, 5, 3

_UNREACHABLE = re.compile("unable to contact|connection refused|timed out|zero bytes|standby|communication", re.I)
# What the step must not take from the job's options, or from this slot: it gets all that the job has on its nodes.
_NOT_FOR_THE_STEP = re.compile(
    r"(SLURM|SRUN)_(CPUS_PER_\w+|GPUS\w*|GPU_\w+|GRES\w*|MEM_\w+|TRES\w*|NNODES|NODELIST|EXACT|EXCLUSIVE|WHOLE|HINT"
    r"|THREADS\w*|CORE_SPEC|DISTRIBUTION|MULTI_PROG|LABELIO|STD\w+MODE|KILL_BAD_EXIT|TIMELIMIT|WAIT|NO_KILL)"
    rf"|{SLOT_GPUS}|(CUDA|HIP)_VISIBLE_DEVICES|ROCR_VISIBLE_DEVICES"
)


# A program ahead of the step's command: the kernel kills that when the launcher ends, however it does. A function that
# runs between fork and exec could do so without a Python of its own, but not safely in a process with threads.
_DIES_WITH_PARENT = (
    sys.executable,
    "-ISc",
    "import ctypes, os, sys; ctypes.CDLL(None).prctl(1, 9); "
    "os.getppid() == int(sys.argv[1]) and os.execvp(sys.argv[2], sys.argv[2:])",
)


@dataclass(frozen=True)
class RemoteProcesses:
    """To a launcher, as the first message on the first of the pipes: what it is to start.

    Attributes:
        pipes: for each rank that is to be started, the descriptor of the launcher's end of its pipe. Rank 0 is a
            worker, and alone.
        address: where the launcher is reached by the nodes.
        port: where the ranks meet while the objective is imported; 0: the node of rank 0 chooses one.
    """

    nodes: NodeGroup
    pipes: Mapping[int, int]
    address: str
    port: int = 0


def start_ranks(setup: Setup) -> list[RankHandle]:
    """Start the other ranks of a worker, on this node and on others."""
    here = ranks_here(setup)
    return [
        *(start_rank(setup, rank) for rank in range(1, here)),
        *start_on_other_nodes(setup, range(here, setup.ranks)),
    ]


def start_on_other_nodes(setup: Setup, ranks: Sequence[int]) -> list[RankHandle]:
    """Start the launcher that starts these ranks on other nodes."""
    if setup.nodes is None or not ranks:
        return []
    pipes = {rank: Pipe() for rank in ranks}
    theirs = {rank: far.fileno() for rank, (_, far) in pipes.items()}
    first = pipes[ranks[0]][0]
    subprocess.Popen(
        module_command("aimlhpo.worker", theirs[ranks[0]], os.getpid(), LAUNCHER),
        stdin=subprocess.DEVNULL,
        pass_fds=list(theirs.values()),
    )
    order = RemoteProcesses(setup.nodes, theirs, setup.nodes.addresses[0], int(os.environ["MASTER_PORT"]))
    first.send(order)
    for _, far in pipes.values():
        far.close()
    return [RankHandle(setup, rank, near) for rank, (near, _) in pipes.items()]


@dataclass(frozen=True)
class _StartOnNode:
    """To a keeper: start the processes of these ranks."""

    nodes: NodeGroup
    ranks: tuple[int, ...]
    port: int


@dataclass(frozen=True)
class _Data:
    """A message from or to the process of a rank, as it came out of the pipe."""

    rank: int
    content: bytes


@dataclass(frozen=True)
class _Signal:
    """To a keeper: send this signal to all of its processes."""

    number: int


@dataclass(frozen=True)
class _Started:
    """From the keeper of this node: it has started all processes of the order, but those that it has called ended."""

    name: str


@dataclass(frozen=True)
class _Ended:
    """The process of a rank has ended; `code` is its exit code, or minus the signal, or None where it was not started
    or lives on without its pipe. `cause` says so in words."""

    rank: int
    cause: str
    code: int | None = None


class _Peer:
    """The other end of a TCP connection; any thread may send."""

    def __init__(self, connection: Connection) -> None:
        self._connection, self._sending = connection, threading.Lock()

    def send(self, message: object) -> None:
        with suppress(OSError), self._sending:  # it is gone, which the end of the connection tells
            self._connection.send(message)

    def receive(self) -> object:
        """The next message. Raises EOFError or OSError when the other end is gone."""
        return self._connection.recv()

    def pass_on(self, rank: int, pipe: Connection) -> None:
        """Send on whatever comes out of the pipe, to its end."""
        with suppress(EOFError, OSError):
            while True:
                self.send(_Data(rank, pipe.recv_bytes()))


def _in_thread(target: Callable[..., None], *arguments: object) -> threading.Thread:
    thread = threading.Thread(target=target, args=arguments, daemon=True)
    thread.start()
    return thread


def _prove(connection: Connection, key: bytes, *, first: bool) -> None:
    """Have each side prove that it knows the key. Raises AuthenticationError, EOFError or OSError."""
    for step in (deliver_challenge, answer_challenge) if first else (answer_challenge, deliver_challenge):
        step(connection, key)


def _watch_over(connected: socket.socket) -> None:
    """Have the kernel notice when the machine at the other end is gone."""
    connected.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    connected.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    connected.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, _IDLE_SECONDS)
    connected.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, _PROBE_SECONDS)
    connected.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT, _PROBES)
    silence = _IDLE_SECONDS + _PROBE_SECONDS * _PROBES
    connected.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, silence * 1000)


class NodeLauncher:
    """Stands for processes on other nodes. It ends with its parent, and they end with it."""

    def __init__(self, first: Connection) -> None:
        order: RemoteProcesses = first.recv()
        self._nodes, self._order = order.nodes, order
        self._pipes = {rank: first if fd == first.fileno() else Connection(fd) for rank, fd in order.pipes.items()}
        self._first = first
        self._left = set(self._pipes)  # the ranks whose processes have not ended
        self._peers: dict[str, _Peer] = {}
        self._events: SimpleQueue[object] = SimpleQueue()
        self._key = secrets.token_bytes(32)
        self._output = tempfile.TemporaryFile()  # noqa: SIM115 -- of the step; it ends with this process
        self._step: subprocess.Popen[bytes] | None = None

    @property
    def _names(self) -> list[str]:
        """The nodes on which there is something to start."""
        return [self._nodes.names[node] for node in sorted({self._nodes.node_of(rank) for rank in self._pipes})]

    def run(self) -> NoReturn:
        """Start the processes and stand for them to their end."""
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda number, frame: self._events.put(_Signal(number)))
        problem = self._start()
        if problem is not None:
            self._end(f"the trial's processes cannot be started on {', '.join(self._names)}: {problem}")
        if 0 not in self._pipes:
            # The other ranks on this node, which rank 0 has started itself, have nobody else to do this.
            beside = [self._nodes.log_of(rank) for rank in range(1, self._nodes.ranks_per_node)]
            _in_thread(_keep_short, beside, self._nodes.log_megabytes)
        for rank, pipe in self._pipes.items():
            _in_thread(self._pass_on, rank, pipe)
        starting = set(self._peers)
        while True:
            match self._events.get():
                case _Started(name):
                    starting.discard(name)
                    if not starting and self._left == self._pipes.keys() and 0 not in self._pipes:
                        self._first.send(NodesJoined())  # else rank 0 has heard which rank is missing
                case _Signal() as message:
                    for peer in self._peers.values():
                        peer.send(message)
                case _Ended() as ended:
                    self._take_end(ended)
                case NodeLost() as lost if self._left_on(lost.name):
                    self._first.send(lost)
                    self._end(f"node {lost.name} was lost")
                case None:  # the parent has closed a pipe
                    self._end("ended by its parent")

    # --- the start ---

    def _start(self) -> str | None:
        """Run the step and wait until its keepers have called back. Returns what has gone wrong."""
        listener = socket.create_server(("", 0), backlog=64)
        _in_thread(self._accept, listener)
        address = f"{self._order.address}:{listener.getsockname()[1]}"
        deadline = time.monotonic() + _JOIN_SECONDS
        waiting: list[_Signal] = []
        while len(self._peers) < len(self._names):
            if self._step is None:
                problem = self._run_step(address)
                if problem is not None:
                    return problem
            try:
                event = self._events.get(timeout=max(0.0, deadline - time.monotonic()))
            except Empty:
                missing = ", ".join(name for name in self._names if name not in self._peers)
                return f"no word from {missing} at {address} within {_JOIN_SECONDS:.0f} s{self._last_words()}"
            match event:
                case (str(name), _Peer() as peer) if name in self._names and name not in self._peers:
                    self._peers[name] = peer
                    _in_thread(self._hear, name, peer)
                case int(code):  # of the step
                    words = self._last_words()
                    if not _UNREACHABLE.search(words) or time.monotonic() > deadline - _RETRY_SECONDS:
                        return f"{self._nodes.start[0]} ended with exit code {code}{words}"
                    time.sleep(_RETRY_SECONDS)
                    self._step = None
                case _Signal():
                    waiting.append(event)
                case NodeLost():
                    return f"node {event.name} was lost while the processes were started{self._last_words()}"
        with suppress(OSError):
            listener.shutdown(socket.SHUT_RDWR)  # closing it alone would not wake the thread that accepts
        listener.close()
        for name, peer in self._peers.items():
            ranks = tuple(rank for rank in self._pipes if self._nodes.names[self._nodes.node_of(rank)] == name)
            peer.send(_StartOnNode(self._nodes, ranks, self._order.port))
        for early in waiting:
            self._events.put(early)
        return None

    def _run_step(self, address: str) -> str | None:
        """Start the step; a thread waits for its end. Returns why it cannot be started."""
        names = self._names
        number, listed = str(len(names)), ",".join(names)
        words = [word.replace("{number}", number).replace("{names}", listed) for word in self._nodes.start]
        python, *rest = module_command("aimlhpo.worker")
        environment = without_process_group(os.environ)
        environment = {name: text for name, text in environment.items() if not _NOT_FOR_THE_STEP.fullmatch(name)}
        if shutil.which(words[0]) is None:
            return f"there is no {words[0]} on PATH"
        try:
            self._step = subprocess.Popen(
                [*_DIES_WITH_PARENT, str(os.getpid()), *words, *(self._nodes.python or (python,)), *rest],
                stdin=subprocess.DEVNULL,
                stdout=self._output,
                stderr=self._output,
                env={**environment, _ADDRESS: address, _KEY: self._key.hex()},
                start_new_session=True,  # a signal to the worker's processes is passed on, and is not the step's end
            )
        except OSError as error:
            return f"cannot start {words[0]}: {error.strerror}"
        _in_thread(lambda step: self._events.put(step.wait()), self._step)
        return None

    def _accept(self, listener: socket.socket) -> None:
        with suppress(OSError):  # closed: all are there
            while True:
                _in_thread(self._greet, listener.accept()[0])

    def _greet(self, connected: socket.socket) -> None:
        """Let in who knows the secret: it says the name of its node. Nobody else costs more than this thread."""
        with suppress(AuthenticationError, EOFError, OSError):  # whoever that was
            limit = int(_HANDSHAKE_SECONDS).to_bytes(8, sys.byteorder) + bytes(8)
            connected.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, limit)
            _watch_over(connected)
            connection = Connection(connected.detach())
            _prove(connection, self._key, first=True)
            name = connection.recv()
            with socket.socket(fileno=os.dup(connection.fileno())) as again:
                again.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, bytes(16))
            self._events.put((name, _Peer(connection)))

    # --- while they run ---

    def _hear(self, name: str, peer: _Peer) -> None:
        """Pass on what a keeper sends, until it is gone."""
        with suppress(EOFError, OSError):
            while True:
                match peer.receive():
                    case _Data() as data:
                        self._pipes[data.rank].send_bytes(data.content)
                    case _Ended() | _Started() as event:
                        self._events.put(event)
        self._events.put(NodeLost(name))

    def _pass_on(self, rank: int, pipe: Connection) -> None:
        self._peers[self._nodes.names[self._nodes.node_of(rank)]].pass_on(rank, pipe)
        self._events.put(None)

    def _left_on(self, name: str) -> bool:
        return any(self._nodes.names[self._nodes.node_of(rank)] == name for rank in self._left)

    def _take_end(self, ended: _Ended) -> None:
        self._left.discard(ended.rank)
        if ended.rank == 0:
            self._end(ended.cause, ended.code)
        with suppress(OSError):
            self._pipes[ended.rank].send(RankEnded(ended.cause))

    def _end(self, cause: str, code: int | None = None) -> NoReturn:
        """End, and with this process all that it stands for; `code` is how the worker has ended.

        Seen from the agent this process is the worker: it dies as that has died.
        """
        if code is None:
            print(cause, flush=True)
            for rank in self._left - {0}:
                with suppress(OSError):
                    self._pipes[rank].send(RankEnded(cause))
        elif code < 0:
            resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
            with suppress(ValueError, OSError):
                signal.signal(-code, signal.SIG_DFL)
            os.kill(os.getpid(), -code)
        os._exit(1 if code is None else abs(code))

    def _last_words(self) -> str:
        """What the step has printed last."""
        text = os.pread(self._output.fileno(), os.fstat(self._output.fileno()).st_size, 0).decode(errors="replace")
        lines = text.splitlines()[-_LAST_LINES:]
        return ":\n" + "\n".join(lines) if lines else ""


class NodeKeeper:
    """Starts the processes of one node, and ends with the launcher."""

    def __init__(self) -> None:
        self._address, self._key = os.environ.pop(_ADDRESS), bytes.fromhex(os.environ.pop(_KEY))
        self._processes: dict[int, subprocess.Popen[bytes]] = {}
        self._pipes: dict[int, Connection] = {}
        self._inboxes: dict[int, SimpleQueue[bytes]] = {}  # what is still to be written to each of the pipes
        self._told: set[int] = set()  # the ranks of whose end the launcher knows
        self._telling = threading.Lock()

    def run(self) -> NoReturn:
        """Start what the launcher asks for, and pass messages on until it is gone."""
        adopt_orphans()  # so that whatever the processes start is found below this one
        for number in (signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2):  # SLURM sends them to the processes, too
            signal.signal(number, lambda number, frame: None)
        host, _, port = self._address.rpartition(":")
        connected = socket.create_connection((host, int(port)), timeout=_HANDSHAKE_SECONDS)
        connected.settimeout(None)
        _watch_over(connected)
        connection = Connection(connected.detach())
        _prove(connection, self._key, first=False)
        connection.send(_node_name())
        launcher = _Peer(connection)
        try:
            with suppress(EOFError, OSError):
                while True:
                    self._take(launcher.receive(), launcher)
        finally:
            self._signal(signal.SIGKILL)
            kill_descendants()
        os._exit(0)

    def _take(self, message: object, launcher: _Peer) -> None:
        match message:
            case _StartOnNode() as order:
                self._start(order, launcher)
                launcher.send(_Started(_node_name()))
            case _Data(rank, content) if rank in self._inboxes:  # else it was not started, which the launcher knows
                self._inboxes[rank].put(content)
            case _Signal(number):
                self._signal(number)

    def _start(self, order: _StartOnNode, launcher: _Peer) -> None:
        try:
            given = {**without_process_group(os.environ), **order.nodes.variables, **_choose_gpus(order.nodes)}
            port = order.port or free_port()
        except (DeviceError, OSError) as error:  # fewer GPUs than the first node has, no port
            for rank in order.ranks:
                launcher.send(_Ended(rank, str(error)))
            return
        for rank in order.ranks:
            pipe, theirs = Pipe()
            environment = {**given, **rank_environment(rank, order.nodes.ranks, port, order.nodes)}
            try:
                with theirs, open(order.nodes.log_of(rank), "ab") as output:
                    self._processes[rank] = subprocess.Popen(
                        module_command("aimlhpo.worker", theirs.fileno(), os.getpid(), rank),
                        stdin=subprocess.DEVNULL,
                        stdout=output,
                        stderr=output,
                        pass_fds=[theirs.fileno()],
                        env=environment,
                        start_new_session=True,
                    )
            except OSError as error:  # no memory, too many processes, a disk that is not there
                launcher.send(_Ended(rank, f"its process was not started on node {_node_name()}: {error}"))
                continue
            self._pipes[rank], self._inboxes[rank] = pipe, SimpleQueue()
            _in_thread(self._deliver, rank)
            _in_thread(self._wait_for_end, rank, launcher, _in_thread(self._follow, rank, launcher))
        _in_thread(_keep_short, [order.nodes.log_of(rank) for rank in order.ranks if rank], order.nodes.log_megabytes)

    def _deliver(self, rank: int) -> None:
        """Pass on what is meant for the process; one that reads nothing keeps no other from its messages."""
        with suppress(OSError):  # it is dead, of which the launcher hears
            while True:
                self._pipes[rank].send_bytes(self._inboxes[rank].get())

    def _follow(self, rank: int, launcher: _Peer) -> None:
        """Pass on what the process sends, and how it has ended."""
        launcher.pass_on(rank, self._pipes[rank])
        self._tell_end(rank, launcher)

    def _wait_for_end(self, rank: int, launcher: _Peer, follower: threading.Thread) -> None:
        """Tell of the process's end where its pipe does not: a process that the objective has forked holds it open."""
        self._processes[rank].wait()
        follower.join(_DRAIN_SECONDS)
        while follower.is_alive() and self._pipes[rank].poll():
            follower.join(_DRAIN_SECONDS)
        self._tell_end(rank, launcher)

    def _tell_end(self, rank: int, launcher: _Peer) -> None:
        ended = _Ended(rank, *cause_of_end(self._processes[rank]))
        with self._telling:
            if rank not in self._told:
                self._told.add(rank)
                launcher.send(ended)

    def _signal(self, number: int) -> None:
        for process in self._processes.values():
            if process.poll() is None:  # else its process group's number may be somebody else's by now
                with suppress(ProcessLookupError):
                    os.killpg(process.pid, number)


def _node_name() -> str:
    """This node, as SLURM calls it."""
    return os.environ.get("SLURMD_NODENAME") or socket.gethostname()


def _choose_gpus(nodes: NodeGroup) -> dict[str, str]:
    """The variables that name the trial's GPUs on this node. Raises DeviceError where the node has not as many."""
    if not nodes.gpus:
        return {}
    if "CUDA_VISIBLE_DEVICES" not in os.environ and "SLURM_STEP_GPUS" in os.environ:
        os.environ["CUDA_VISIBLE_DEVICES"] = os.environ["SLURM_STEP_GPUS"]
    here = visible_gpus()
    if len(here) <= max(nodes.gpus):
        raise DeviceError(
            f"the job has only {len(here)} GPUs on node {_node_name()}, and its first node has more.\n"
            "    Ask for as many on each node: batch: gpus-per-node, or gres."
        )
    names = ",".join(here[place] for place in nodes.gpus)
    return {"CUDA_VISIBLE_DEVICES": names, SLOT_GPUS: names}


def _keep_short(files: Sequence[str], megabytes: int) -> None:
    """Trim these logs for ever."""
    logs = [WorkerLog(Path(file), megabytes) for file in files]
    while logs:
        for log in logs:
            log.trim()
        time.sleep(_TRIM_SECONDS)
