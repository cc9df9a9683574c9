"""An outage is a wait: what fails because the storage is away is tried again, with growing pauses.

`RetryPolicy.run` is called in the thread that needs the storage; `give_up` and `wake` may be called by any other.

A `SerialExecutor` is a thread that does jobs one after another, each through outages, so that an agent's main thread
never waits for them. An agent has one for the storage ("storage": every access to the study, in order) and, where its
sampler may take long, one that asks the sampling process ("sampling"). The main thread submits jobs, waits on `fileno`
beside its workers, and calls `deliver` to run what follows from those that are done.
"""

from __future__ import annotations

import errno
import os
import threading
import time
from collections.abc import Callable
from queue import Empty, SimpleQueue
from typing import Any, TypeVar

from aimlhpo.errors import StorageError, StudyFailed

T = TypeVar("T")
Job = Callable[[], Any]
Callback = Callable[[Any], None]

_FIRST_PAUSE, _LONGEST_PAUSE = 0.25, 15.0  # seconds between two attempts
_OUTAGE_ERRNOS = {
    errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EROFS, errno.ESTALE, errno.ESHUTDOWN, errno.ETIMEDOUT,
    errno.ECONNREFUSED, errno.ENOTCONN, errno.EHOSTDOWN, errno.EHOSTUNREACH, errno.ENETUNREACH,
    errno.EAGAIN, errno.ENOMEM,
}  # fmt: skip


class RetryPolicy:
    """Repeats jobs through outages, for `seconds()` at most; says so once when one begins and once when it is over."""

    def __init__(self, log: Callable[[str], None], seconds: Callable[[], float]) -> None:
        self._log, self._seconds = log, seconds
        self._given_up = False
        self._woken = threading.Event()

    def give_up(self) -> None:
        """Wait no longer, now and later."""
        self._given_up = True
        self._woken.set()

    def wake(self) -> None:
        """End the pause between two attempts: `seconds()` has changed, or there is a reason to try at once."""
        self._woken.set()

    def run(self, job: Callable[[], T]) -> T:
        """The job's result. The job must be safe to repeat.

        Raises StorageError when the outage lasts longer than `seconds()`, and at once whatever else the job raises.
        """
        began, pause, outage = time.monotonic(), _FIRST_PAUSE, False
        while True:
            try:
                result = job()
            except Exception as error:
                if not is_outage(error):
                    raise
                if not outage:
                    self._log(f"the storage does not answer, trying again: {first_line(error)}")
                    began, outage = time.monotonic(), True
                waited = time.monotonic() - began
                if self._given_up or waited >= self._seconds():
                    said = f"the storage has not answered for {waited:.0f} s: {first_line(error)}"
                    raise StorageError(said) from error
            else:
                if outage:
                    self._log(f"the storage answers again after {time.monotonic() - began:.0f} s")
                return result
            pause = _FIRST_PAUSE if self._woken.wait(pause) else min(2 * pause, _LONGEST_PAUSE)
            self._woken.clear()


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


def is_outage(error: BaseException | None) -> bool:
    """Whether the storage is away for a while (a stopped server, a full disk), by the error or what caused it."""
    if error is None:
        return False
    if isinstance(error, OSError) and error.errno in _OUTAGE_ERRNOS:
        return True
    # By name, so that neither SQLAlchemy nor the client of Redis has to be imported here.
    module, names = type(error).__module__, {kind.__name__ for kind in type(error).__mro__}
    if module.startswith("sqlalchemy"):
        away = bool(names & {"OperationalError", "InterfaceError", "TimeoutError"})
        away = away or bool(getattr(error, "connection_invalidated", False))
    else:
        away = module.startswith("redis") and bool(names & {"ConnectionError", "TimeoutError", "BusyLoadingError"})
    return away or is_outage(error.__cause__)


def first_line(error: BaseException) -> str:
    """What an error says, in one line."""
    return next(iter(str(error.__cause__ or error).strip().splitlines()), type(error).__name__)
