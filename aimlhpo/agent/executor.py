"""A thread that does jobs one after another, so that the agent's main thread never waits for them.

An agent has one for the storage ("storage": every access to the study, in order) and, where its sampler may take long,
one that asks the sampling process ("sampling"). The main thread submits jobs, waits on `fileno` beside its workers, and
calls `deliver` to run what follows from those that are done.
"""

from __future__ import annotations

import gc
import os
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from queue import Empty, SimpleQueue
from typing import Any

from aimlhpo.errors import StudyFailed
from aimlhpo.storage.retry import RetryPolicy

Job = Callable[[], Any]
Callback = Callable[[Any], None]


class SerialExecutor:
    """Runs jobs in order in a thread of its own; the callback of each runs in the thread that calls `deliver`.

    A job must be safe to repeat, and return no exception: it is repeated while the storage is away. Any other error is
    raised by `deliver`.

    Runs in: the main thread, except `_run`, which is the executor's own thread. They share two queues and a pipe; no
    attribute is written by both.
    """

    def __init__(self, name: str, retry: RetryPolicy) -> None:
        self._jobs: SimpleQueue[tuple[Job, Callback] | None] = SimpleQueue()
        self._done: SimpleQueue[tuple[Callback, Any]] = SimpleQueue()
        self._wake_read, self._wake_write = os.pipe()
        self._retry = retry
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._broken = threading.Event()
        self._open = 0

    def __enter__(self) -> SerialExecutor:
        self._thread.start()
        return self

    def __exit__(self, kind: object, error: object, trace: object) -> None:
        """Wait for the jobs that were submitted; after an error, only for the one that runs."""
        if kind is not None:
            self._broken.set()
            self._retry.give_up()
        self._jobs.put(None)
        self._thread.join()
        os.close(self._wake_read)
        os.close(self._wake_write)

    def fileno(self) -> int:
        """Readable when there is something to deliver."""
        return self._wake_read

    def submit(self, job: Job, callback: Callback = lambda result: None) -> None:
        self._open += 1
        self._jobs.put((job, callback))

    def deliver(self) -> None:
        """Run the callbacks of the jobs done so far. Raises what a job raised."""
        while True:
            try:
                callback, result = self._done.get_nowait()
            except Empty:
                return
            os.read(self._wake_read, 1)
            self._open -= 1
            if isinstance(result, Exception):
                raise result
            callback(result)

    def is_idle(self) -> bool:
        """Whether every submitted job has been done and delivered."""
        return self._open == 0

    def wake(self) -> None:
        """End a pause between two tries during an outage."""
        self._retry.wake()

    def _run(self) -> None:
        while (task := self._jobs.get()) is not None:
            job, callback = task
            result: Any = None  # an exception is raised by deliver
            try:
                if not self._broken.is_set():
                    result = self._retry.run(job)
            except Exception as error:  # noqa: BLE001 -- raised again by deliver
                result = error
            except BaseException as error:  # noqa: BLE001 -- a sampler of the user's own may call sys.exit
                result = StudyFailed(f"work on the study ended with {type(error).__name__}: {error}")
            self._done.put((callback, result))
            os.write(self._wake_write, b".")


_SWITCH_INTERVAL = 0.0005  # seconds; Python's own 0.005 is waited several times for each trial that ends


@contextmanager
def short_switch_interval() -> Iterator[None]:
    """Have Python switch threads so often that the main thread answers at once; undo `gc.freeze` at the end."""
    usual = sys.getswitchinterval()
    sys.setswitchinterval(_SWITCH_INTERVAL)
    try:
        yield
    finally:
        gc.unfreeze()
        sys.setswitchinterval(usual)
