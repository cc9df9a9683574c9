"""The agent's side of tracking: starts the child that does it, passes on what it says, and bounds its end."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING

import aimlhpo
from aimlhpo.ledger.leases import Election
from aimlhpo.tracking.messages import FinishTracking, LogLine, TrackingDone, TrackingReady

if TYPE_CHECKING:
    from aimlhpo.config.schema import Config

_PACKAGE_ROOT = Path(aimlhpo.__file__).parent.parent
_RESTART = 60.0  # seconds until a child that has died is followed by another
_HANDOVER = 5.0  # seconds that an agent waits for one that is about to end
_END, _HURRIED_END = 60.0, 5.0  # seconds that the child has for what is left; the second where a signal has come
_UNTOLD = 2.0  # seconds of waiting that need no word
_SILENCE, _LOCAL_SILENCE = 12.0, 60.0  # seconds without anything sent, for a server; for files, and until it is ready


class Tracker:
    """Tells tracking tools of a study's trials, where the configuration asks for it and this agent is elected.

    No call waits for a tool but `finish`, which is bounded.
    """

    def __init__(self, config: Config, agent: str, log: Callable[[str], None]) -> None:
        self._config, self._log = config, log
        self._wanted = config.log.mlflow is not None or config.log.tensorboard is not None
        self._election = Election(config.paths.state / "tracker.lock")
        self._output = config.paths.logs / f"tracker-{agent}.log"
        self._child: subprocess.Popen[bytes] | None = None
        self._connection: Connection | None = None
        self._is_ready = False
        self._start_at = 0.0

    def __enter__(self) -> Tracker:
        self._election.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._end_child()
        self._election.__exit__(kind, error, trace)

    def look(self) -> None:
        """Start a child where one is needed, and pass on what it has said. Called again and again."""
        if self._connection is not None:
            self._listen(self._connection)
        elif self._wanted and time.monotonic() >= self._start_at and self._election.won():
            self._election.begin()
            self._start()

    def finish(self, cause: str | None) -> None:
        """Have what is left sent, some seconds long at most; `cause` is why the agent stops before the study's end."""
        if not self._wanted or not self._takes_part():
            return
        self.look()
        if self._connection is None:  # it has died: one more does the rest
            self._start()
        if self._connection is not None:
            self._election.resign()
            self._tell_rest(self._await_done(self._connection, cause))

    def _takes_part(self) -> bool:
        """Whether the rest is ours to send: the one that is elected does it, unless it has ended or is about to."""
        deadline = time.monotonic() + _HANDOVER
        while not self._election.won():
            if not self._election.is_vacant_soon() or time.monotonic() >= deadline:
                return False
            time.sleep(0.1)
        return True

    def _await_done(self, connection: Connection, cause: str | None) -> list[str]:
        deadline = time.monotonic() + (_END if cause is None else _HURRIED_END)
        try:
            connection.send(FinishTracking("finished" if cause is None else "stopped"))
            if not connection.poll(_UNTOLD):
                self._log("sending the last trials to the tracking tools")
            while connection.poll(max(0.0, min(deadline - time.monotonic(), self._longest_silence()))):
                message = connection.recv()
                if isinstance(message, TrackingDone):
                    return message.lacks
                if isinstance(message, TrackingReady) and cause is None:
                    deadline = time.monotonic() + _END
                self._hear(message)
        except (EOFError, OSError):
            return [f"the child process that does it has died ({self._output})"]
        return ["there was no more time"]

    def _longest_silence(self) -> float:
        mlflow = self._config.log.mlflow
        to_server = mlflow is not None and mlflow.uri.startswith("http")
        return _SILENCE if to_server and self._is_ready else _LOCAL_SILENCE

    def _tell_rest(self, lacks: list[str]) -> None:
        for line in lacks:
            self._log(f"tracking is not complete: {line}")
        if lacks:
            self._log(f"    aimlhpo track {self._config.paths.save_path}  # sends the rest")

    def _listen(self, connection: Connection) -> None:
        try:
            while connection.poll():
                self._hear(connection.recv())
        except (EOFError, OSError):
            self._give_up(f"it has died, and {self._output} says why")

    def _hear(self, message: object) -> None:
        self._is_ready = self._is_ready or isinstance(message, TrackingReady)
        if isinstance(message, LogLine):
            self._log(message.text)

    def _start(self) -> None:
        path = os.pathsep.join(filter(None, [os.environ.get("PYTHONPATH"), str(_PACKAGE_ROOT)]))
        self._is_ready = False
        self._connection, theirs = Pipe()
        try:
            with theirs, open(self._output, "ab") as output:
                self._child = subprocess.Popen(
                    [sys.executable, "-P", "-m", "aimlhpo.tracking", str(theirs.fileno())],
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=output,
                    pass_fds=[theirs.fileno()],
                    env={**os.environ, "PYTHONPATH": path},
                    start_new_session=True,
                )
            self._connection.send(self._config)
        except OSError as error:
            self._give_up(str(error))

    def _give_up(self, reason: str) -> None:
        """Do without a child for a while."""
        self._end_child()
        self._start_at = time.monotonic() + _RESTART
        self._log(f"the process that tells tracking tools of the trials is started again later: {reason}")

    def _end_child(self) -> None:
        if self._connection is not None:
            self._connection.close()
        if self._child is not None:
            self._child.kill()
            self._child.wait()
        self._child = self._connection = None
