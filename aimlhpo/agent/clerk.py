"""One thread that does all work on the storage, in order, so that the agent always answers."""

from __future__ import annotations

import errno
import os
import threading
import time
from collections.abc import Callable
from queue import Empty, SimpleQueue
from types import TracebackType
from typing import Any

_FIRST_PAUSE, _LONGEST_PAUSE = 0.25, 15.0  # seconds between tries while the storage is away
_OUTAGE_ERRNOS = {
    errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.ESTALE, errno.ETIMEDOUT, errno.ECONNREFUSED, errno.ENOTCONN,
}  # fmt: skip

Job = Callable[[], Any]
Then = Callable[[Any], None]


class Clerk:
    """Runs jobs one after another in a thread; what follows from each runs in the thread that calls `deliver`.

    A job that fails because the storage is away is tried again, with growing pauses, for as long as `patience`
    (seconds) lasts; jobs must be safe to repeat. Any other error is raised by `deliver`.
    """

    def __init__(self, log: Callable[[str], None], patience: float) -> None:
        self._jobs: SimpleQueue[tuple[Job, Then] | None] = SimpleQueue()
        self._done: SimpleQueue[tuple[Then, Any]] = SimpleQueue()
        self._wake_read, self._wake_write = os.pipe()
        self._log, self._patience = log, patience
        self._thread = threading.Thread(target=self._run, name="clerk", daemon=True)
        self._hurry = threading.Event()
        self._open = 0

    def __enter__(self) -> Clerk:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._hurry.set()
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
            try:
                result = self._patiently(job)
            except Exception as error:  # noqa: BLE001 -- raised again by deliver
                result = _Failure(error)
            self._done.put((then, result))
            os.write(self._wake_write, b".")

    def _patiently(self, job: Job) -> Any:
        began, pause = None, _FIRST_PAUSE
        while True:
            try:
                result = job()
            except Exception as error:
                began = began or time.monotonic()
                if not is_outage(error) or time.monotonic() - began > self._patience or self._hurry.is_set():
                    raise
                if pause == _FIRST_PAUSE:
                    self._log(f"the storage does not answer, trying again: {_first_line(error)}")
                self._hurry.wait(pause)
                pause = min(2 * pause, _LONGEST_PAUSE)
            else:
                if began is not None:
                    self._log(f"the storage answers again after {time.monotonic() - began:.0f} s")
                return result


class _Failure:
    """An error on its way from the clerk's thread to the agent's."""

    def __init__(self, error: Exception) -> None:
        self.error = error


def is_outage(error: BaseException | None) -> bool:
    """Whether the storage is away for a while (a stopped server, a full disk), by the error or what caused it."""
    if error is None:
        return False
    if isinstance(error, OSError) and error.errno in _OUTAGE_ERRNOS:
        return True
    return _is_database_outage(error) or is_outage(error.__cause__)


def _is_database_outage(error: BaseException) -> bool:
    module, names = type(error).__module__, {kind.__name__ for kind in type(error).__mro__}
    if module.startswith("sqlalchemy"):
        return bool(names & {"OperationalError", "InterfaceError", "TimeoutError"}) or _disconnected(error)
    return module.startswith("redis") and bool(names & {"ConnectionError", "TimeoutError", "BusyLoadingError"})


def _disconnected(error: BaseException) -> bool:
    return bool(getattr(error, "connection_invalidated", False))


def _first_line(error: BaseException) -> str:
    return next(iter(str(error.__cause__ or error).strip().splitlines()), type(error).__name__)
