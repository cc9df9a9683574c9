"""The worker's end of the pipe to its agent.

The training thread sends; a thread of the channel's own receives, and ends the process when the agent is gone.
"""

from __future__ import annotations

import os
import threading
import traceback
from multiprocessing.connection import Connection
from queue import SimpleQueue
from typing import Any

from aimlhpo.objective.messages import Assignment, Decision, Pause, Stop, Suggested, SuggestRequest


class PipeChannel:
    """Passes messages on between the training thread and the agent.

    Attributes:
        assignments: the trials to run, and the Stop after the last one; the training thread takes them out.
    """

    def __init__(self, connection: Connection) -> None:
        self.assignments: SimpleQueue[Assignment | Stop] = SimpleQueue()
        self._connection = connection
        self._sending = threading.Lock()
        self._answers: SimpleQueue[Suggested] = SimpleQueue()
        self._pause: Pause | None = None
        self._decision: Decision | None = None  # the newest one; the condition guards it
        self._decided = threading.Condition()

    def start(self) -> None:
        """Begin to receive."""
        threading.Thread(target=self._receive, name="channel", daemon=True).start()

    def send(self, message: object) -> None:
        """Send to the agent; any thread may."""
        with self._sending:
            self._connection.send(message)

    def request(self, message: SuggestRequest) -> Any:
        """Ask the agent for a suggestion and wait for it. Raises what Optuna raised there."""
        self.send(message)
        answer = self._answers.get()
        if answer.error is not None:
            raise answer.error
        return answer.value

    def decision(self, number: int, step: int | None, *, wait: bool) -> bool:
        """Whether the newest decision is to prune trial `number`; with `wait`, the one on the report at `step`.

        At the rung where the trial pauses there is nothing to decide.
        """
        if self._pause is not None and step is not None and step >= self._pause.step:
            return True

        def newest() -> Decision | None:
            return self._decision if self._decision is not None and self._decision.number == number else None

        with self._decided:
            if wait and step is not None:
                self._decided.wait_for(lambda: (known := newest()) is not None and known.step >= step)
            known = newest()
            return known is not None and known.prune

    def _receive(self) -> None:
        try:
            while True:
                message = self._connection.recv()
                match message:
                    case Assignment():
                        self._pause, self._decision = message.pause, None
                        self.assignments.put(message)
                    case Stop():
                        self.assignments.put(message)
                    case Suggested():
                        self._answers.put(message)
                    case Decision():
                        with self._decided:
                            self._decision = message
                            self._decided.notify_all()
        except (EOFError, OSError):
            os._exit(1)
        except Exception:  # noqa: BLE001 -- the trial would wait for ever for what cannot be read
            traceback.print_exc()
            os._exit(1)
