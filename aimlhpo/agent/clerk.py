"""One thread that does all work on the storage, in order, so that the agent always answers."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from queue import Empty, SimpleQueue
from types import TracebackType
from typing import Any

from aimlhpo.errors import StudyFailed
from aimlhpo.patience import Patience

Job = Callable[[], Any]
Then = Callable[[Any], None]


class Clerk:
    """Runs jobs one after another in a thread; what follows from each runs in the thread that calls `deliver`.

    Jobs must be safe to repeat: they are, while the storage is away. Other errors are raised by `deliver`.
    """

    def __init__(self, patience: Patience) -> None:
        self._jobs: SimpleQueue[tuple[Job, Then] | None] = SimpleQueue()
        self._done: SimpleQueue[tuple[Then, Any]] = SimpleQueue()
        self._wake_read, self._wake_write = os.pipe()
        self._patience = patience
        self._thread = threading.Thread(target=self._run, name="clerk", daemon=True)
        self._broken = threading.Event()
        self._open = 0

    def __enter__(self) -> Clerk:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is not None:
            self._broken.set()
            self._patience.give_up()
        self._jobs.put(None)
        self._thread.join()
        os.close(self._wake_read)
        os.close(self._wake_write)

    def fileno(self) -> int:
        """Readable when there is something to deliver."""
        return self._wake_read

    def submit(self, job: Job, then: Then = lambda _: None) -> None:
        self._open += 1
        self._jobs.put((job, then))

    def deliver(self) -> None:
        """Run what follows from the jobs done so far. Raises what a job raised."""
        while True:
            try:
                then, result = self._done.get_nowait()
            except Empty:
                return
            os.read(self._wake_read, 1)
            self._open -= 1
            if isinstance(result, _Failure):
                raise result.error
            then(result)

    @property
    def idle(self) -> bool:
        """Whether every submitted job has been done and delivered."""
        return self._open == 0

    def _run(self) -> None:
        while (task := self._jobs.get()) is not None:
            job, then = task
            self._done.put((then, self._result(job)))
            os.write(self._wake_write, b".")

    def _result(self, job: Job) -> Any:
        if self._broken.is_set():
            return None
        try:
            return self._patience.run(job)
        except Exception as error:  # noqa: BLE001 -- raised again by deliver
            return _Failure(error)
        except BaseException as error:  # noqa: BLE001 -- a sampler of the user's own may call sys.exit
            return _Failure(StudyFailed(f"work on the study ended with {type(error).__name__}: {error}"))


class _Failure:
    """An error on its way from the clerk's thread to the agent's."""

    def __init__(self, error: Exception) -> None:
        self.error = error
