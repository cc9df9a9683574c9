"""An executor's thread tells the main thread of any error that ends a job."""

from __future__ import annotations

import sys
from multiprocessing.connection import wait

import pytest

from aimlhpo.agent.executor import SerialExecutor
from aimlhpo.errors import StudyFailed
from aimlhpo.storage.retry import RetryPolicy


def test_job_that_asks_python_to_exit_is_a_failure_of_the_study() -> None:
    with SerialExecutor("storage", RetryPolicy(print, lambda: 0.0)) as executor:
        executor.submit(lambda: sys.exit(0))  # as a sampler of the user's own may
        assert wait([executor.fileno()], timeout=60)
        with pytest.raises(StudyFailed, match="SystemExit: 0"):
            executor.deliver()
