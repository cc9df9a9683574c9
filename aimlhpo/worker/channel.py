"""A worker's connections: the pipe to its agent, and the socket at which processes that user code starts use its trial.

Any thread of the worker may send to the agent and ask it; a thread of the channel's own receives, and ends the process
when the agent is gone.

A trial belongs to one process: the worker, or one of its other ranks. Others may hold it, too, forked from that process
or given a pickle. What they report, ask or suggest is done by the process that the trial belongs to, on its own trial,
one call at a time for each of them; the answer goes back to the process that asked. There, a `RelayedChannel` of
`aimlhpo.objective.trial` stands in the place of the channel to the agent.
"""

from __future__ import annotations

import errno
import fcntl
import itertools
import os
import pickle
import select
import socket
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from multiprocessing.connection import Connection
from queue import SimpleQueue
from typing import Any

from aimlhpo.objective.messages import Answer, Assignment, Decision, ReadRequest, Stop, SuggestRequest
from aimlhpo.objective.trial import Trial, peer_of

_TRY_AGAIN_SECONDS = 0.1
_BUSY = (errno.EAGAIN, errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM, errno.ECONNABORTED)


def start_receiving(connection: Connection, take: Callable[[object], None]) -> None:
    """Have a thread hand each message to `take`; it ends this process when the other end is gone."""

    def receive() -> None:
        try:
            while True:
                take(connection.recv())
        except (EOFError, OSError):
            os._exit(1)
        except Exception:  # noqa: BLE001 -- the trial would wait for ever for what cannot be read
            traceback.print_exc()
            os._exit(1)

    threading.Thread(target=receive, name="channel", daemon=True).start()


class PipeChannel:
    """Passes messages on between the worker's threads and the agent.

    Attributes:
        assignments: the trials to run, and the Stop after the last one; the training thread takes them out.
    """

    def __init__(self, connection: Connection) -> None:
        self.assignments: SimpleQueue[Assignment | Stop] = SimpleQueue()
        self._connection = connection
        self._sending = threading.Lock()
        self._questions = itertools.count(1)
        self._asked: dict[int, SimpleQueue[Answer]] = {}
        self._decided = threading.Condition()  # guards the next two
        self._running: Assignment | None = None
        self._decision: Decision | None = None  # the newest one on that trial

    def start(self) -> None:
        """Begin to receive."""
        start_receiving(self._connection, self._take)

    def send(self, message: object) -> None:
        """Send to the agent; any thread may."""
        with self._sending:
            self._connection.send(message)

    def request(self, message: SuggestRequest | ReadRequest) -> Any:
        """Ask the agent and wait for its answer. Raises what it was refused with.

        An answer whose asker has given up meanwhile, by an alarm's exception for example, is dropped.
        """
        question, answer = next(self._questions), SimpleQueue[Answer]()
        self._asked[question] = answer
        try:
            self.send(replace(message, question=question))
            return answer.get().get()
        finally:
            del self._asked[question]

    def decision(self, number: int, step: int | None, *, wait: bool) -> bool:
        """Whether the newest decision is to prune trial `number`; with `wait`, the one on the report at `step`.

        At the rung where the trial pauses there is nothing to decide. False for a trial that has ended.
        """
        with self._decided:
            if wait and step is not None:
                self._decided.wait_for(lambda: self._is_settled(number, step))
            if self._running is None or self._running.number != number:
                return False
            pause = self._running.pause
            if pause is not None and step is not None and step >= pause.step:
                return True
            return self._decision is not None and self._decision.prune

    def _is_settled(self, number: int, step: int) -> bool:
        """Whether there is nothing to wait for: the decision on that report is here, or none will come."""
        if self._running is None or self._running.number != number:
            return True
        pause = self._running.pause
        decided = self._decision is not None and self._decision.step >= step
        return decided or (pause is not None and step >= pause.step)

    def end_trial(self) -> None:
        """The trial has ended: nobody waits for a decision on it any more."""
        self._begin(None)

    def _begin(self, assignment: Assignment | None) -> None:
        with self._decided:
            self._running, self._decision = assignment, None
            self._decided.notify_all()

    def _take(self, message: object) -> None:
        match message:
            case Assignment():
                self._begin(message)
                self.assignments.put(message)
            case Stop():
                self.assignments.put(message)
            case Answer():
                if (asker := self._asked.get(message.question)) is not None:
                    asker.put(message)
            case Decision():
                with self._decided:
                    if self._running is not None and self._running.number == message.number:
                        self._decision = message
                        self._decided.notify_all()


class Relay:
    """Serves the trial that runs in this process to those that this process has started.

    Attributes:
        name: of the socket, in Linux's abstract namespace, which the kernel has chosen: it is gone with the process.

    Runs in: a thread that listens, and one for each process that has connected.
    """

    def __init__(self) -> None:
        self._trial: Trial | None = None
        self._connections: set[Connection] = set()
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.setblocking(False)
        self._socket.bind("")
        self._socket.listen()
        self.name: bytes = self._socket.getsockname()
        os.register_at_fork(after_in_child=self._close)
        threading.Thread(target=self._listen, name="relay", daemon=True).start()

    @contextmanager
    def serving(self, trial: Trial) -> Iterator[None]:
        """Serve this trial for the time of the `with` block."""
        self._trial = trial
        try:
            yield
        finally:
            self._trial = None

    def _listen(self) -> None:
        # Linux's accept takes its descriptor before it waits: waiting in it could hold the place of a standard output
        # that user code has closed.
        arrivals = select.poll()
        arrivals.register(self._socket, select.POLLIN)
        while True:
            try:
                arrivals.poll()
                accepted, _ = self._socket.accept()
                with accepted:
                    _, user = peer_of(accepted)
                    connection = Connection(fcntl.fcntl(accepted, fcntl.F_DUPFD_CLOEXEC, 3))  # no standard descriptor
            except OSError as error:
                if error.errno not in _BUSY:  # somebody has closed it: whoever connects is told that there is nobody
                    return
                time.sleep(_TRY_AGAIN_SECONDS)
                continue
            if user == os.getuid():
                with suppress(RuntimeError):  # there can be no more threads
                    threading.Thread(target=self._serve, args=(connection,), name="relay", daemon=True).start()
                    continue
            connection.close()

    def _serve(self, connection: Connection) -> None:
        """Answer one process until it hangs up."""
        self._connections.add(connection)
        with connection, suppress(EOFError, OSError):
            while True:
                connection.send(self._answer(connection.recv_bytes()))
        self._connections.discard(connection)

    def _answer(self, call: bytes) -> Answer:
        try:
            address, message = pickle.loads(call)  # noqa: S301 -- from a process of the same user
            trial = self._trial
            if trial is None or (trial.number, trial.attempt) != (address.number, address.attempt):
                return Answer(error=RuntimeError(f"trial {address.number} has ended: from now on it can only be read"))
            return Answer(trial.take(message))
        except BaseException as error:  # noqa: BLE001 -- raised where the call was made
            return Answer(error=error)

    def _close(self) -> None:
        """In a forked process: leave the sockets to the parent alone, whose end they then tell of."""
        self._socket.close()
        for connection in self._connections:
            with suppress(OSError):
                connection.close()
