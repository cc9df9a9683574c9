"""One trial on several devices: the worker is rank 0 and owns the trial, the other ranks follow it.

Every rank is a process that runs the objective's `train`, with the environment that torch.distributed reads (RANK,
LOCAL_RANK, WORLD_SIZE, MASTER_ADDR, MASTER_PORT). What rank 0 learns from the agent, a pruning decision or a suggested
value, each other rank gets in the same order, so that all ranks act alike. The other ranks report nothing.

Rank 0 calls `RankGroup` and `SharingChannel` in its training thread; a thread of the group waits for how the others
end. The others have a `FollowingChannel` in place of the agent's; their main loop is `aimlhpo.worker.worker.run_rank`.
"""

from __future__ import annotations

import errno
import os
import random
import socket
import subprocess
import threading
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing import Pipe
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any

from aimlhpo.objective.messages import FAIL, Assignment, Finished, Outcome, Setup, Suggested, SuggestRequest
from aimlhpo.objective.trial import Channel
from aimlhpo.processes import module_command

_CLIENTS = Path("/proc/sys/net/ipv4/ip_local_port_range")
_FIRST, _ENOUGH, _TRIES = 10000, 1000, 50  # ports
_RANDOM = random.SystemRandom()  # not the global generator: user code seeds that one alike in all workers
_SECONDS_AFTER_RANK_ZERO = 60.0  # that the other ranks have to end the trial


@dataclass(frozen=True)
class Begin:
    """From rank 0: run this trial; the ranks meet at `port`."""

    assignment: Assignment
    port: int


@dataclass(frozen=True)
class RankEnded:
    """To rank 0: this rank has ended the trial; `cause` says what went wrong, if anything did."""

    cause: str | None = None
    error: str | None = None


class RankGroup:
    """The other ranks of a worker; there are none where a trial has one device.

    Attributes:
        channel: what rank 0's trial asks the agent through; the answers go to the other ranks, too.
    """

    def __init__(self, setup: Setup, channel: Channel) -> None:
        self._setup, self._agent = setup, channel
        self._number: int | None = None  # of the trial that runs
        self._others = [RankHandle(setup, rank) for rank in range(1, setup.ranks)]
        self._ended: set[int] = set()
        self._change = threading.Condition()
        self.channel: Channel = SharingChannel(channel, self._others) if self._others else channel
        if self._others:
            threading.Thread(target=self._watch, name="ranks", daemon=True).start()

    def begin(self, assignment: Assignment) -> None:
        """Start the trial in all ranks."""
        if not self._others:
            return
        with self._change:
            self._number = assignment.number
            self._ended = set()
        port = _free_port()
        os.environ.update(rank_environment(0, self._setup.ranks, port))
        for other in self._others:
            other.send(Begin(assignment, port))

    def finish(self) -> None:
        """Rank 0 has ended the trial: wait for the others, and fail the trial where they do not end."""
        for other in self._others:
            other.send(None)  # no more answers
        with self._change:
            all_ended = self._change.wait_for(lambda: len(self._ended) == len(self._others), _SECONDS_AFTER_RANK_ZERO)
            if not all_ended:
                self._fail("the other ranks did not end after rank 0", None)
            self._number = None

    def _watch(self) -> None:
        """Receive how the other ranks end; one that fails, or dies, fails the trial, whatever rank 0 waits for."""
        by_connection = {other.connection: other for other in self._others}
        while True:
            for connection in wait(list(by_connection)):
                assert isinstance(connection, Connection)
                try:
                    ended: RankEnded = connection.recv()
                except (EOFError, OSError):
                    ended = RankEnded("its process died")
                rank = by_connection[connection].rank
                with self._change:
                    if ended.cause is not None:
                        self._fail(f"rank {rank}: {ended.cause}", ended.error)
                    self._ended.add(rank)
                    self._change.notify_all()

    def _fail(self, cause: str, error: str | None) -> None:
        """End the trial from outside the training thread, which may hang in a collective: the process goes with it."""
        if self._number is not None:
            outcome = Outcome(FAIL, cause=cause, error=error, ends_worker=True)
            self._agent.send(Finished(self._number, outcome))
            threading.Event().wait()  # the agent ends this process


class RankHandle:
    """Another rank as rank 0 sees it: its process is started here, and ends with rank 0."""

    def __init__(self, setup: Setup, rank: int) -> None:
        self.rank = rank
        self.connection, theirs = Pipe()
        with theirs:
            subprocess.Popen(
                module_command("aimlhpo.worker", theirs.fileno(), os.getpid(), rank),
                stdin=subprocess.DEVNULL,
                pass_fds=[theirs.fileno()],
            )
        self.send(setup)

    def send(self, message: object) -> None:
        with suppress(OSError):  # it is dead, which the end of its pipe tells
            self.connection.send(message)


class SharingChannel:
    """Rank 0's channel: what comes back from the agent goes to the other ranks, too."""

    def __init__(self, inner: Channel, others: Sequence[RankHandle]) -> None:
        self._inner, self._others = inner, others

    def send(self, message: object) -> None:
        self._inner.send(message)

    def request(self, message: SuggestRequest) -> Any:
        try:
            value = self._inner.request(message)
        except Exception as error:
            self._share(Suggested(error=error))
            raise
        self._share(Suggested(value))
        return value

    def decision(self, number: int, step: int | None, *, wait: bool) -> bool:
        prune = self._inner.decision(number, step, wait=wait)
        self._share(Suggested(prune))
        return prune

    def _share(self, answer: Suggested) -> None:
        for other in self._others:
            other.send(answer)


class RankZeroIsDone(BaseException):
    """Rank 0 has ended the trial while this rank still asked."""


class FollowingChannel:
    """Another rank's channel: gives what rank 0 was given, in the same order, and sends nothing."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def send(self, message: object) -> None:
        """Rank 0 alone reports."""

    def request(self, message: SuggestRequest) -> Any:
        return self._next()

    def decision(self, number: int, step: int | None, *, wait: bool) -> bool:
        return bool(self._next())

    def _next(self) -> Any:
        answer: Suggested | None = self._connection.recv()
        if answer is None:
            raise RankZeroIsDone
        if answer.error is not None:
            raise answer.error
        return answer.value


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
    """A port that nobody has now, and that the kernel gives to no client until rank 0 comes to listen on it."""
    for port in _RANDOM.sample(_ports_of_no_client(), _TRIES):
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
