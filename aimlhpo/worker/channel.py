"""The worker's end of the pipe to its agent."""

from __future__ import annotations

import os
import threading
import traceback
from multiprocessing.connection import Connection
from queue import SimpleQueue
from typing import Any

from aimlhpo.objective.messages import Assignment, Decision, Pause, Stop, Suggested, SuggestRequest


class PipeChannel:
    """Sends from the training thread; a second thread sorts what comes in, and ends the process with the agent."""

    def __init__(self, connection: Connection) -> None:
        self.assignments: SimpleQueue[Assignment | Stop] = SimpleQueue()
        self._connection = connection
        self._answers: SimpleQueue[Suggested] = SimpleQueue()
        self._decisions: dict[int, Decision] = {}
        self._decided = threading.Condition()
        self._pause: Pause | None = None
        self._sending = threading.Lock()

    def start(self) -> None:
        threading.Thread(target=self._receive, name="channel", daemon=True).start()

    def send(self, message: object) -> None:
        with self._sending:
            self._connection.send(message)

    def request(self, message: SuggestRequest) -> Any:
        """Ask the agent for a suggestion. Raises what Optuna raised there."""
        self.send(message)
        answer = self._answers.get()
        if answer.error is not None:
            raise answer.error
        return answer.value

    def decision(self, number: int, step: int | None, *, wait: bool) -> bool:
        """The newest pruning decision on the trial; with `wait`, the one seen from the report at `step`.

        At the rung where the trial pauses there is nothing to decide.
        """
        if self._pause is not None and step is not None and step >= self._pause.step:
            return True
        with self._decided:
            if wait and step is not None:
                self._decided.wait_for(lambda: self._has(number, step))
            latest = self._decisions.get(number)
            return latest is not None and latest.prune

    def _has(self, number: int, step: int) -> bool:
        latest = self._decisions.get(number)
        return latest is not None and latest.step >= step

    def _receive(self) -> None:
        try:
            while True:
                self._sort(self._connection.recv())
        except (EOFError, OSError):
            os._exit(1)
        except Exception:  # noqa: BLE001 -- the trial waits for what cannot be read
            traceback.print_exc()
            os._exit(1)

    def _sort(self, message: object) -> None:
        match message:
            case Assignment():
                self._pause, self._decisions = message.pause, {}
                self.assignments.put(message)
            case Stop():
                self.assignments.put(message)
            case Suggested():
                self._answers.put(message)
            case Decision():
                with self._decided:
                    self._decisions = {message.number: message}
                    self._decided.notify_all()
