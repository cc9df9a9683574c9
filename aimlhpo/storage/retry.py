"""An outage is a wait: what fails because the storage is away is tried again, with growing pauses.

`RetryPolicy.run` is called in the thread that needs the storage; `give_up` and `wake` may be called by any other.
"""

from __future__ import annotations

import errno
import threading
import time
from collections.abc import Callable
from typing import TypeVar

from aimlhpo.errors import StorageError

T = TypeVar("T")

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
