"""What counts as an outage, and how it is waited out; a thread that does so tells of any error that ends a job."""

from __future__ import annotations

import errno
import sys
from collections.abc import Callable
from multiprocessing.connection import wait

import pytest
from sqlalchemy.exc import IntegrityError, OperationalError

from aimlhpo.errors import StorageError, StudyFailed
from aimlhpo.storage.retry import RetryPolicy, SerialExecutor, is_outage


def failing(times: int, error: Exception) -> Callable[[], str]:
    left = [times]

    def job() -> str:
        if left[0]:
            left[0] -= 1
            raise error
        return "done"

    return job


AWAY = OperationalError("SELECT 1", {}, Exception("server closed the connection"))


@pytest.mark.parametrize(
    ("error", "outage"),
    [
        (AWAY, True),
        (OSError(errno.ENOSPC, "No space left on device"), True),
        (OSError(errno.ESHUTDOWN, "Cannot send after transport endpoint shutdown"), True),  # Lustre's eviction
        (OSError(errno.EHOSTUNREACH, "No route to host"), True),
        (OSError(errno.EAGAIN, "Resource temporarily unavailable"), True),  # a fork
        (OSError(errno.EACCES, "Permission denied"), False),
        (IntegrityError("INSERT", {}, Exception("duplicate")), False),
        (ValueError("no"), False),
    ],
)
def test_outages_are_told_from_mistakes(error: Exception, outage: bool) -> None:
    assert is_outage(error) is outage


def test_outage_is_waited_out_with_one_line_for_its_begin_and_one_for_its_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("aimlhpo.storage.retry._FIRST_PAUSE", 0.01)
    lines: list[str] = []
    assert RetryPolicy(lines.append, lambda: 60.0).run(failing(2, AWAY)) == "done"
    assert len(lines) == 2
    assert "does not answer" in lines[0]
    assert "answers again" in lines[1]


def test_a_pause_can_be_ended_from_outside() -> None:
    policy = RetryPolicy(lambda line: None, lambda: 600.0)
    tries = 0

    def job() -> str:
        nonlocal tries
        tries += 1
        policy.wake()
        if tries < 40:  # these would take minutes with the pauses between them
            raise AWAY
        return "done"

    assert policy.run(job) == "done"


def test_mistake_is_raised_at_once() -> None:
    lines: list[str] = []
    with pytest.raises(ValueError, match="no"):
        RetryPolicy(lines.append, lambda: 60.0).run(failing(1, ValueError("no")))
    assert lines == []


def test_outage_that_lasts_too_long_is_a_storage_error() -> None:
    with pytest.raises(StorageError, match="has not answered"):
        RetryPolicy(lambda line: None, lambda: 0.0).run(failing(10**6, AWAY))


def test_job_that_asks_python_to_exit_is_a_failure_of_the_study() -> None:
    with SerialExecutor("storage", RetryPolicy(print, lambda: 0.0)) as executor:
        executor.submit(lambda: sys.exit(0))  # as a sampler of the user's own may
        assert wait([executor.fileno()], timeout=60)
        with pytest.raises(StudyFailed, match="SystemExit: 0"):
            executor.deliver()
