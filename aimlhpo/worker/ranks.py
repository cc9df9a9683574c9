"""What rank 0 and the other ranks of a trial say to each other.
One trial on several devices: the worker is rank 0 and owns the trial, the other ranks follow it.

Every rank runs the objective's `train` with the environment that torch.distributed reads (RANK, LOCAL_RANK,
WORLD_SIZE, MASTER_ADDR, MASTER_PORT). What rank 0 learns from the agent, a pruning decision or a suggested value,
each follower gets in the same order, so that all ranks take the same turns.
"""

from __future__ import annotations

import errno
import os
import random
import socket
import subprocess
import sys
import threading
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing import Pipe
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any

from aimlhpo.objective.messages import FAIL, Assignment, Finished, Outcome, Setup, SuggestRequest
from aimlhpo.objective.trial import Channel


@dataclass(frozen=True)
class Begin:
    """Run this trial; the ranks meet at `port`."""

    assignment: Assignment
    port: int


@dataclass(frozen=True)
class Shared:
    """What rank 0 was answered: a pruning decision, a suggested value, or the refusal of one."""

    value: Any = None
    error: Exception | None = None


@dataclass(frozen=True)
class RankAnswer:
    """Rank 0 has ended the trial: no more answers come."""


@dataclass(frozen=True)
class RankEnded:
    """A follower has ended the trial; `cause` says what went wrong, if anything did."""

    cause: str | None = None
    error: str | None = None


_CLIENTS = Path("/proc/sys/net/ipv4/ip_local_port_range")
_FIRST, _ENOUGH, _TRIES = 10000, 1000, 50  # ports
_ANY = random.SystemRandom()  # not the global generator: user code seeds that one alike in all workers
_SETTLING = 60.0  # seconds that the other ranks have for the end of a trial after rank 0


class RankGroup:
    """The followers of a worker; none where a trial has one device."""

    def __init__(self, setup: Setup, channel: Channel) -> None:
        self._setup, self._agent = setup, channel
        self._number: int | None = None
        self._followers = [RankHandle(setup, rank) for rank in range(1, setup.ranks)]
        self._ended: set[int] = set()
        self._change = threading.Condition()
        self.channel: Channel = SharingChannel(channel, self._followers) if self._followers else channel
        if self._followers:
            threading.Thread(target=self._watch, name="team", daemon=True).start()

    def begin(self, assignment: Assignment) -> None:
        """Start the trial in all ranks."""
        if not self._followers:
            return
        with self._change:
            self._number = assignment.number
            self._ended = set()
        port = _free_port()
        os.environ.update(rank_environment(0, self._setup.ranks, port))
        for follower in self._followers:
            follower.send(Begin(assignment, port))

    def settle(self) -> None:
        """Rank 0 is done: wait for the others, and give those up that do not end."""
        for follower in self._followers:
            follower.send(RankAnswer())
        with self._change:
            if not self._change.wait_for(lambda: len(self._ended) == len(self._followers), _SETTLING):
                self._fail("the other ranks did not end after rank 0", None)
            self._number = None

    def _watch(self) -> None:
        """Hear how the followers end; one that fails, or dies, fails the trial, whatever rank 0 is waiting for."""
        by_connection = {follower.connection: follower for follower in self._followers}
        while True:
            for connection in wait(list(by_connection)):
                assert isinstance(connection, Connection)
                self._note(by_connection[connection], _receive(connection))

    def _note(self, follower: RankHandle, ended: RankEnded) -> None:
        with self._change:
            if ended.cause is not None:
                self._fail(f"rank {follower.rank}: {ended.cause}", ended.error)
            self._ended.add(follower.rank)
            self._change.notify_all()

    def _fail(self, cause: str, error: str | None) -> None:
        """End the trial from outside the training thread, which may hang in a collective: the process goes with it."""
        if self._number is not None:
            outcome = Outcome(FAIL, cause=cause, error=error, ends_worker=True)
            self._agent.send(Finished(self._number, outcome))
            threading.Event().wait()  # the agent ends this process


class RankHandle:
    """A process that runs the same training as another rank of the same trial."""

    def __init__(self, setup: Setup, rank: int) -> None:
        self.rank = rank
        self.connection, theirs = Pipe()
        with theirs:
            command = [sys.executable, "-P", "-m", "aimlhpo.worker.rank_process"]
            subprocess.Popen(
                [*command, str(theirs.fileno()), str(os.getpid()), str(rank)],
                stdin=subprocess.DEVNULL,
                pass_fds=[theirs.fileno()],
            )
        self.send(setup)

    def send(self, message: object) -> None:
        with suppress(OSError):  # a dead follower: the end of its pipe tells
            self.connection.send(message)


class SharingChannel:
    """Rank 0's channel: what comes back from the agent goes to the followers, too."""

    def __init__(self, inner: Channel, followers: list[RankHandle]) -> None:
        self._inner, self._followers = inner, followers

    def send(self, message: object) -> None:
        self._inner.send(message)

    def request(self, message: SuggestRequest) -> Any:
        try:
            value = self._inner.request(message)
        except Exception as error:
            self._share(Shared(error=error))
            raise
        self._share(Shared(value))
        return value

    def decision(self, number: int, step: int | None, *, wait: bool) -> bool:
        prune = self._inner.decision(number, step, wait=wait)
        self._share(Shared(prune))
        return prune

    def _share(self, answer: Shared) -> None:
        for follower in self._followers:
            follower.send(answer)


def rank_environment(rank: int, ranks: int, port: int) -> dict[str, str]:
    """What torch.distributed reads from the environment, for ranks on one node."""
    return {
        "RANK": str(rank),
        "LOCAL_RANK": str(rank),
        "WORLD_SIZE": str(ranks),
        "LOCAL_WORLD_SIZE": str(ranks),
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
    }


def _free_port() -> int:
    """One that nobody has now, and that the kernel gives to no client until rank 0 comes to listen on it."""
    for port in _ANY.sample(_ports_of_no_client(), _TRIES):
        with socket.socket() as probe, suppress(OSError):
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(("127.0.0.1", port))
            return port
    raise OSError(errno.EADDRINUSE, f"none of {_TRIES} TCP ports is free for the ranks to meet at")


def _ports_of_no_client() -> Sequence[int]:
    """Those below or above the range that clients get; all where next to none are left, or nothing is known of it."""
    low = high = 0
    with suppress(OSError, ValueError):
        low, high = map(int, _CLIENTS.read_text().split())
    found = [port for port in range(_FIRST, 1 << 16) if not low <= port <= high]
    return found if len(found) >= _ENOUGH else range(_FIRST, 1 << 16)


def _receive(connection: Connection) -> RankEnded:
    try:
        message: RankEnded = connection.recv()
    except (EOFError, OSError):
        return RankEnded("its process died")
    return message
