"""One trial on several devices: the worker is rank 0 and owns the trial, the other ranks follow it.

Every rank is a process that runs the objective's `train`, with the environment that torchrun would give it. What rank 0
learns from the agent, a pruning decision or a suggested value, each other rank gets, too, so that all ranks act alike.
The other ranks report nothing. Where the trial has several nodes, a launcher stands for the ranks on the others
(`nodes`).

    RankGroup               the other ranks, in rank 0: its training thread calls it, and a thread of the group waits
                            for how the others end; their main loop is `aimlhpo.worker.worker.run_rank`
    SharingChannel          rank 0 asks the agent through it; each answer goes to the other ranks, too
    FollowingChannel        what another rank asks instead of the agent
    ProcessGroupVariables   what a framework is told of the processes that train together: torchrun's variables in each
                            rank, else nothing

A worker lives in a SLURM job, whose variables describe tasks and steps that have nothing to do with a trial's ranks.
Frameworks believe them all the same: Lightning takes the rank from SLURM_PROCID and sets signal handlers that requeue
the job, JAX and TensorFlow look for the step's other tasks, a library built with MPI waits for them. So they are taken
out, and what describes the job alone (SLURM_JOB_ID, SLURM_JOB_NODELIST, SLURM_ARRAY_TASK_ID ...) stays.
"""

from __future__ import annotations

import errno
import math
import os
import random
import re
import socket
import subprocess
import threading
import time
from collections import defaultdict
from collections.abc import Hashable, Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass, replace
from multiprocessing import Pipe
from multiprocessing.connection import Connection, wait
from pathlib import Path
from queue import SimpleQueue
from typing import Any, Protocol

from aimlhpo.objective.messages import (
    COMPLETE,
    FAIL,
    Answer,
    Assignment,
    Finished,
    NodeGroup,
    NodeLost,
    Outcome,
    ReadRequest,
    Setup,
    SuggestRequest,
)
from aimlhpo.objective.trial import Channel
from aimlhpo.processes import module_command
from aimlhpo.worker.channel import start_receiving

_SECONDS_AFTER_RANK_ZERO = 60.0  # that the other ranks have to end the trial
_GRACE = 3.0  # seconds that all ranks have to end it once one has failed
_LOST_PEER = re.compile(r"gloo|nccl|closed by peer|reset by peer|broken pipe|Dist(Backend|Network|Store)Error", re.I)
_END_SECONDS = 3.0  # that a process has to end once it has closed its pipe
_NEXT_DECISION = "decision"  # of a rank that does not report, and so knows of no step


# --- what ranks say to each other ---


@dataclass(frozen=True)
class Begin:
    """From rank 0: run this trial; the ranks meet at `port`."""

    assignment: Assignment
    port: int


@dataclass(frozen=True)
class EndTrial:
    """From rank 0: it has ended the trial, and answers no more; `complete` says whether with a result."""

    complete: bool = False


@dataclass(frozen=True)
class RankEnded:
    """To rank 0: this rank has ended the trial; `cause` says what went wrong, if anything did."""

    cause: str | None = None
    error: str | None = None


@dataclass(frozen=True)
class NodesJoined:
    """To rank 0: the processes of all ranks on other nodes have been started."""


@dataclass(frozen=True)
class SharedAnswer:
    """From rank 0: what it was told when it asked one of `questions`, which are different names for the same one."""

    questions: tuple[Hashable, ...]
    answer: Answer


# --- in rank 0 ---


class RankGroup:
    """The other ranks of a worker; there are none where a trial has one device.

    Args:
        setup: what the worker was told.
        channel: the way to the agent.
        others: the other ranks, which have been started (`nodes.start_ranks`).

    Attributes:
        channel: what rank 0's trial asks the agent through; the answers go to the other ranks, too.
    """

    def __init__(self, setup: Setup, channel: Channel, others: Sequence[RankHandle]) -> None:
        self._setup, self._agent, self._others = setup, channel, others
        self._number: int | None = None  # of the trial that runs
        self._began = 0.0
        self._joined = ranks_here(setup) == setup.ranks
        self._variables: ProcessGroupVariables | None = None
        self._ended: dict[int, RankEnded] = {}  # how ranks have ended the trial, in that order
        self._failed_at = math.inf
        self._problem: str | None = None  # what has gone wrong before the first trial
        self._change = threading.Condition()
        self.channel: Channel = SharingChannel(channel, self._others) if self._others else channel
        if self._others:
            threading.Thread(target=self._watch, name="ranks", daemon=True).start()

    def wait_until_there(self) -> str | None:
        """Wait until other nodes have joined; returns what keeps them, or a rank, from that."""
        with self._change:
            self._change.wait_for(lambda: self._joined or self._problem is not None)
            return self._problem

    def begin(self, assignment: Assignment) -> None:
        """Start the trial in all ranks."""
        self._variables = self._variables or ProcessGroupVariables()
        if not self._others:
            self._variables.enter({})
            return
        port = free_port()
        self._variables.enter(rank_environment(0, self._setup.ranks, port, self._setup.nodes))
        with self._change:
            self._number, self._began = assignment.number, time.monotonic()
            self._ended, self._failed_at = {}, math.inf
        for other in self._others:
            other.send(Begin(assignment, port))

    def finish(self, outcome: Outcome) -> Outcome:
        """Rank 0 has ended the trial: wait for the others; gives how the trial has ended, seen from all ranks."""
        if not self._others:
            return outcome
        for other in self._others:
            other.send(EndTrial(outcome.state == COMPLETE))
        with self._change:
            self._note(0, RankEnded(outcome.cause, outcome.error))
            patience = time.monotonic() + _SECONDS_AFTER_RANK_ZERO
            while (left := min(patience, self._failed_at + _GRACE) - time.monotonic()) > 0 and self._missing():
                self._change.wait(left)
            self._number = None
            return self._judge(outcome)

    def _watch(self) -> None:
        """Receive how the other ranks end; one that fails fails the trial, also where rank 0 waits for it for ever."""
        by_connection = {other.connection: other for other in self._others}
        while True:
            with self._change:
                rank_zero_hangs = self._number is not None and 0 not in self._ended
                left = self._failed_at + _GRACE - time.monotonic() if rank_zero_hangs else math.inf
            for connection in wait(list(by_connection), None if math.isinf(left) else max(0.0, left)):
                assert isinstance(connection, Connection)
                rank = by_connection[connection].rank
                try:
                    message = connection.recv()
                except (EOFError, OSError):
                    message = RankEnded(by_connection.pop(connection).cause_of_death())
                with self._change:
                    match message:
                        case RankEnded() as ended:
                            self._hear_end(rank, ended)
                        case NodesJoined():
                            self._joined = True
                            self._change.notify_all()
                        case NodeLost():
                            self._agent.send(message)
            with self._change:
                if self._number is not None and 0 not in self._ended and time.monotonic() > self._failed_at + _GRACE:
                    outcome = Outcome(FAIL, seconds=time.monotonic() - self._began)
                    self._agent.send(Finished(self._number, self._judge(outcome)))
                    threading.Event().wait()  # with the lock: the agent ends this process, wherever rank 0 hangs

    def _hear_end(self, rank: int, ended: RankEnded) -> None:
        if self._number is not None or ended.cause is None:
            self._note(rank, ended)
        elif self._joined:  # it has died between two trials: the agent starts another worker
            with suppress(OSError, ValueError):  # where that can be written
                print(f"rank {rank}: {ended.cause}", flush=True)
            os._exit(1)
        else:
            self._problem = self._problem or f"rank {rank}: {ended.cause}"
            self._change.notify_all()

    def _note(self, rank: int, ended: RankEnded) -> None:
        self._ended.setdefault(rank, ended)
        if ended.cause is not None:
            self._failed_at = min(self._failed_at, time.monotonic())
        self._change.notify_all()

    def _missing(self) -> list[int]:
        """The ranks that have not ended the trial."""
        return [rank for rank in range(self._setup.ranks) if rank not in self._ended]

    def _judge(self, outcome: Outcome) -> Outcome:
        """Rank 0's outcome, or the failure of the rank that was the first to fail.

        A rank that merely has lost the connection to another one is not the first, whichever error has come first.
        After a failure, what the ranks have sent each other may not match: they are started anew.
        """
        failures = {rank: ended for rank, ended in self._ended.items() if ended.cause is not None}
        if not failures:
            missing = ", ".join(map(str, self._missing()))
            if not missing:
                return outcome
            cause = (
                f"rank {missing} did not end within {_SECONDS_AFTER_RANK_ZERO:.0f} s after rank 0 ({outcome.state}); "
                "all ranks have to call the same collectives, and trial.should_prune alike"
            )
            return replace(outcome, state=FAIL, values=None, cause=cause, ends_worker=True)
        rank, first = min(failures.items(), key=lambda failure: bool(_LOST_PEER.search(str(failure[1].cause))))
        if 0 in failures and failures[0].cause == first.cause:  # the same in all ranks
            rank, first = 0, failures[0]
        told = first.cause if rank == 0 else f"rank {rank}: {first.cause}"
        return replace(outcome, state=FAIL, values=None, cause=told, error=first.error, ends_worker=True)


class RankHandle:
    """Another rank as rank 0 sees it; its process ends with rank 0.

    `process` is None for a rank on another node: the launcher says how its process has ended.
    """

    def __init__(
        self, setup: Setup, rank: int, connection: Connection, process: subprocess.Popen[bytes] | None = None
    ) -> None:
        self.rank, self.connection, self._process = rank, connection, process
        self.send(setup)

    def send(self, message: object) -> None:
        with suppress(OSError):  # it is dead, which the end of its pipe tells
            self.connection.send(message)

    def cause_of_death(self) -> str:
        """How its process has ended."""
        return cause_of_end(self._process)[0] if self._process is not None else "its launcher has ended"


def cause_of_end(process: subprocess.Popen[bytes]) -> tuple[str, int | None]:
    """How a process that has closed its pipe has ended, in words, and its exit code or minus its signal."""
    try:
        code = process.wait(_END_SECONDS)
    except subprocess.TimeoutExpired:
        return "its process closed its pipe", None
    return (
        f"its process was killed by signal {-code}" if code < 0 else f"its process ended with exit code {code}"
    ), code


def ranks_here(setup: Setup) -> int:
    """How many of the ranks, rank 0 included, are on rank 0's node."""
    return setup.nodes.ranks_per_node if setup.nodes else setup.ranks


def start_rank(setup: Setup, rank: int) -> RankHandle:
    """Start another rank on this node."""
    connection, theirs = Pipe()
    port = int(os.environ["MASTER_PORT"])  # at which the objective may meet the others when it is imported
    with theirs, ExitStack() as stack:
        output = stack.enter_context(open(setup.nodes.log_of(rank), "ab")) if setup.nodes else None
        process = subprocess.Popen(
            module_command("aimlhpo.worker", theirs.fileno(), os.getpid(), rank),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            pass_fds=[theirs.fileno()],
            env={**os.environ, **rank_environment(rank, setup.ranks, port, setup.nodes)},
        )
    return RankHandle(setup, rank, connection, process)


# --- what ranks ask ---


class Rank(Protocol):
    """Another rank, as rank 0 sees it."""

    def send(self, message: object) -> None:
        """Send it a message."""


class RankZeroIsDone(BaseException):
    """Rank 0 has ended the trial while this rank still asked."""


class SharingChannel:
    """Rank 0's channel."""

    def __init__(self, inner: Channel, others: Sequence[Rank]) -> None:
        self._inner, self._others = inner, others

    def send(self, message: object) -> None:
        self._inner.send(message)

    def request(self, message: SuggestRequest | ReadRequest) -> Any:
        try:
            value = self._inner.request(message)
        except Exception as error:
            self._share(Answer(error=error), _question(message))
            raise
        self._share(Answer(value), _question(message))
        return value

    def decision(self, number: int, step: int | None, *, wait: bool) -> bool:
        prune = self._inner.decision(number, step, wait=wait)
        self._share(Answer(prune), step, _NEXT_DECISION)
        return prune

    def _share(self, answer: Answer, *questions: Hashable) -> None:
        for other in self._others:
            other.send(SharedAnswer(questions, answer))


class FollowingChannel:
    """Another rank's channel: gives what rank 0 was told, and sends nothing.

    A thread of its own receives, so that rank 0 never waits for this rank; it ends the process when rank 0 is gone.
    """

    def __init__(self, connection: Connection) -> None:
        self._trials: SimpleQueue[Begin] = SimpleQueue()
        self._change = threading.Condition()  # guards the next two
        self._answers: dict[Hashable, list[Answer]] = defaultdict(list)
        self._done = self._complete = self._pruned = False
        start_receiving(connection, self._take)

    def next_trial(self) -> Begin:
        """Wait for rank 0 to begin one."""
        return self._trials.get()

    @property
    def is_given_up(self) -> bool:
        """Whether rank 0 has decided to prune the trial, or has ended it without a result."""
        with self._change:
            return self._pruned or (self._done and not self._complete)

    @property
    def is_complete(self) -> bool:
        """Whether rank 0 has ended the trial with a result."""
        with self._change:
            return self._complete

    def send(self, message: object) -> None:
        """Rank 0 alone reports."""

    def request(self, message: SuggestRequest | ReadRequest) -> Any:
        return self._next(_question(message))

    def decision(self, number: int, step: int | None, *, wait: bool) -> bool:
        return bool(self._next(_NEXT_DECISION if step is None else step))

    def _next(self, question: Hashable) -> Any:
        with self._change:
            self._change.wait_for(lambda: self._answers[question] or self._done)
            if not self._answers[question]:
                raise RankZeroIsDone
            return self._answers[question].pop(0).get()

    def _take(self, message: object) -> None:
        with self._change:
            match message:
                case Begin():
                    self._answers.clear()
                    self._done = self._complete = self._pruned = False
                    self._trials.put(message)
                case SharedAnswer():
                    for question in message.questions:
                        self._answers[question].append(message.answer)
                    if _NEXT_DECISION in message.questions:
                        self._pruned = self._pruned or message.answer.value is True
                case EndTrial():
                    self._done, self._complete = True, message.complete
            self._change.notify_all()


def _question(message: SuggestRequest | ReadRequest) -> Hashable:
    return message.arguments["name"] if isinstance(message, SuggestRequest) else ("read", message.what)


# --- what frameworks are told ---


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
