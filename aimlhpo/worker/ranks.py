"""One trial on several devices: the worker is rank 0 and owns the trial, the other ranks follow it.

Every rank is a process that runs the objective's `train`, with the environment that torchrun would give it
(`process_group`). What rank 0 learns from the agent, a pruning decision or a suggested value, each other rank gets, too
(`rank_channels`), so that all ranks act alike. The other ranks report nothing. Where the trial has several nodes, a
launcher stands for the ranks on the others (`nodes`).

Rank 0 calls `RankGroup` in its training thread; a thread of the group waits for how the others end. The main loop of
the others is `aimlhpo.worker.worker.run_rank`.
"""

from __future__ import annotations

import math
import os
import re
import subprocess
import threading
import time
from collections.abc import Sequence
from contextlib import ExitStack, suppress
from dataclasses import replace
from multiprocessing import Pipe
from multiprocessing.connection import Connection, wait

from aimlhpo.objective.messages import COMPLETE, FAIL, Assignment, Finished, NodeLost, Outcome, Setup
from aimlhpo.objective.trial import Channel
from aimlhpo.processes import module_command
from aimlhpo.worker.nodes import LAUNCHER, RemoteProcesses, cause_of_end
from aimlhpo.worker.process_group import ProcessGroupVariables, free_port, rank_environment
from aimlhpo.worker.rank_channels import Begin, EndTrial, NodesJoined, RankEnded, SharingChannel

_SECONDS_AFTER_RANK_ZERO = 60.0  # that the other ranks have to end the trial
_GRACE = 3.0  # seconds that all ranks have to end it once one has failed
_LOST_PEER = re.compile(r"gloo|nccl|closed by peer|reset by peer|broken pipe|Dist(Backend|Network|Store)Error", re.I)


class RankGroup:
    """The other ranks of a worker; there are none where a trial has one device.

    Attributes:
        channel: what rank 0's trial asks the agent through; the answers go to the other ranks, too.
    """

    def __init__(self, setup: Setup, channel: Channel) -> None:
        self._setup, self._agent = setup, channel
        self._number: int | None = None  # of the trial that runs
        self._began = 0.0
        here = setup.nodes.ranks_per_node if setup.nodes else setup.ranks
        self._others = [start_rank(setup, rank) for rank in range(1, here)]
        self._others += start_on_other_nodes(setup, range(here, setup.ranks))
        self._joined = here == setup.ranks
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
        port = free_port() if self._others else 0
        self._variables.enter(rank_environment(0, self._setup.ranks, port, self._setup.nodes))
        if not self._others:
            return
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
