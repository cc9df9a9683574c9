"""An outage is a wait: what fails because the storage is away is tried again, with growing pauses."""

from __future__ import annotations

import errno
import threading
import time
from collections.abc import Callable
from typing import TypeVar

from aimlhpo.errors import StorageError

T = TypeVar("T")

_FIRST_PAUSE, _LONGEST_PAUSE = 0.25, 15.0  # seconds between two tries
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
        """End the pause between two tries: there is less patience now, or a reason to look."""
        self._woken.set()

    def run(self, job: Callable[[], T]) -> T:
        """The job's result. The job must be safe to repeat.

        Raises StorageError when the outage outlasts the patience, and whatever else the job raises at once.
        """
        try:
            return job()
        except Exception as error:
            if not is_outage(error):
                raise
            self._log(f"the storage does not answer, trying again: {first_line(error)}")
            return self._outlast(job, error)

    def _outlast(self, job: Callable[[], T], error: Exception) -> T:
        began, pause = time.monotonic(), _FIRST_PAUSE
        while not self._given_up and time.monotonic() - began < self._seconds():
            pause = _FIRST_PAUSE if self._woken.wait(pause) else min(2 * pause, _LONGEST_PAUSE)
            self._woken.clear()
            try:
                result = job()
            except Exception as again:
                if not is_outage(again):
                    raise
                error = again
            else:
                self._log(f"the storage answers again after {time.monotonic() - began:.0f} s")
                return result
        waited = time.monotonic() - began
        raise StorageError(f"the storage has not answered for {waited:.0f} s: {first_line(error)}") from error


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
        away = names & {"OperationalError", "InterfaceError", "TimeoutError"}
        return bool(away) or bool(getattr(error, "connection_invalidated", False))
    return module.startswith("redis") and bool(names & {"ConnectionError", "TimeoutError", "BusyLoadingError"})


def first_line(error: BaseException) -> str:
    """What an error says, in one line."""
    return next(iter(str(error.__cause__ or error).strip().splitlines()), type(error).__name__)
