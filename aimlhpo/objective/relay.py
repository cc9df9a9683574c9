"""How processes that an objective starts use its trial.

A trial belongs to one process: the worker, or one of its other ranks. Others may hold it, too, forked from that process
or given a pickle. What they report, ask or suggest is done by the process that the trial belongs to, on its own trial,
one call at a time for each of them; the answer goes back to the process that asked.

    Relay           serves the trial that runs in this process
    RelayedChannel  in another process, stands in the place of the channel to the agent
"""

from __future__ import annotations

import errno
import os
import pickle
import socket
import struct
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import Any, NamedTuple, Protocol

from aimlhpo.objective.messages import Answer, ReadRequest, SuggestRequest

_CREDENTIALS = struct.Struct("3i")
_TRY_AGAIN_SECONDS = 0.1
_BUSY = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM, errno.ECONNABORTED)


class TrialAddress(NamedTuple):
    """Where an attempt at a trial runs: a process, and the name of its relay's socket."""

    number: int
    attempt: int
    process: int
    name: bytes


@dataclass(frozen=True)
class ShouldPrune:
    """The question that `trial.should_prune` asks."""


class ServedTrial(Protocol):
    """A trial as the relay sees it."""

    number: int
    attempt: int

    def take(self, message: object) -> Any:
        """Do what another process asks for; returns the answer. Raises what that process is to see."""


class Relay:
    """Serves the trial that runs in this process to those that this process has started.

    Attributes:
        name: of the socket, in Linux's abstract namespace, which the kernel has chosen: it is gone with the process.

    Runs in: a thread that listens, and one for each process that has connected.
    """

    def __init__(self) -> None:
        self._trial: ServedTrial | None = None
        self._connections: set[Connection] = set()
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.bind("")
        self._socket.listen()
        self.name: bytes = self._socket.getsockname()
        os.register_at_fork(after_in_child=self._close)
        threading.Thread(target=self._listen, name="relay", daemon=True).start()

    @contextmanager
    def serving(self, trial: ServedTrial) -> Iterator[None]:
        """Serve this trial for the time of the `with` block."""
        self._trial = trial
        try:
            yield
        finally:
            self._trial = None

    def _listen(self) -> None:
        while True:
            try:
                accepted, _ = self._socket.accept()
            except OSError as error:
                if error.errno not in _BUSY:  # somebody has closed it: whoever connects is told that there is nobody
                    return
                time.sleep(_TRY_AGAIN_SECONDS)
                continue
            _, user = _credentials(accepted)
            connection = Connection(accepted.detach())
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


class RelayedChannel:
    """The channel of a trial that belongs to another process.

    Every call raises what it has raised there, or RuntimeError, saying so, where the trial has ended or cannot be
    reached from here.
    """

    def __init__(self, address: TrialAddress) -> None:
        self._address = address
        self._calling = threading.Lock()
        self._connection: Connection | None = None

    def send(self, message: object) -> None:
        self._call(message)

    def request(self, message: SuggestRequest | ReadRequest) -> Any:
        return self._call(message)

    def decision(self, number: int, step: int | None, *, wait: bool) -> bool:
        return bool(self._call(ShouldPrune()))

    def _call(self, message: object) -> Any:
        with self._calling:
            connection, self._connection = self._connection or self._connect(), None
            try:
                connection.send((self._address, message))
                answer: Answer = connection.recv()
            except (EOFError, OSError):
                raise self._unreachable() from None
            self._connection = connection  # without its answer, the call would be answered to the next question
        return answer.get()

    def _connect(self) -> Connection:
        """Raises RuntimeError."""
        with socket.socket(socket.AF_UNIX) as client:
            try:
                client.connect(self._address.name)
            except OSError:
                raise self._unreachable() from None
            if _credentials(client) != (self._address.process, os.getuid()):
                raise self._unreachable()
            return Connection(client.detach())

    def _unreachable(self) -> RuntimeError:
        return RuntimeError(
            f"trial {self._address.number} can only be read in process {os.getpid()}: the process that ran it has "
            "ended, or is on another machine"
        )


def _credentials(connected: socket.socket) -> tuple[int, int]:
    """The process and the user at the other end, as the kernel knows them."""
    process, user, _ = _CREDENTIALS.unpack(
        connected.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
    )
    return process, user
