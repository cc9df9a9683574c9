"""What an agent and its sampling process say to each other.
The agent's end of its sampling process.
"""

from __future__ import annotations

import errno
import os
import subprocess
import sys
import threading
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from pathlib import Path
from typing import TYPE_CHECKING, Any

from optuna.samplers import BaseSampler, QMCSampler, RandomSampler

import aimlhpo
from aimlhpo.errors import StudyFailed
from aimlhpo.search.bounded import BoundedSampler
from aimlhpo.storage.base import Operation

if TYPE_CHECKING:
    from aimlhpo.config.schema import Config


@dataclass(frozen=True)
class SamplingRequest:
    """Trials to be sampled, as (trial id, number)."""

    trials: Sequence[tuple[int, int]]


@dataclass(frozen=True)
class Suggestion:
    """The user's values for a trial, and what is to be written with it."""

    number: int
    values: dict[str, Any]
    operations: list[Operation]


@dataclass(frozen=True)
class SamplingAnswer:
    suggestions: Sequence[Suggestion]


@dataclass(frozen=True)
class SamplingRefusal:
    """Why there are no suggestions; an `outage` of the storage is worth another try."""

    reason: str
    outage: bool


MOST_DEATHS = 3  # of the process in a row, over the same trials
_WITHOUT_HISTORY = (RandomSampler, QMCSampler)


def needs_process(sampler: BaseSampler) -> bool:
    """Whether sampling may take long. Samplers that are not Optuna's own may learn as trials end: they stay."""
    sampler = sampler.inner if isinstance(sampler, BoundedSampler) else sampler
    ours = type(sampler).__module__.startswith("optuna.samplers")
    return ours and not isinstance(sampler, _WITHOUT_HISTORY)


class SamplingProcess:
    """Asks a child process for suggestions; the child is there from `start` to `close`."""

    def __init__(self, config: Config, sampler: str) -> None:
        self._config, self._sampler = config, sampler
        self._closed = False
        self._changing = threading.Lock()
        self._connection: Connection | None = None

    def start(self) -> None:
        self._connection, theirs = Pipe()
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-P", "-m", "aimlhpo.search.sampling_child", str(theirs.fileno()), str(os.getpid())],
                stdin=subprocess.DEVNULL,
                pass_fds=[theirs.fileno()],
                env=_environment(),
                start_new_session=True,
            )
        with suppress(OSError):  # dead already: the first question tells
            self._connection.send(self._config)

    @property
    def pid(self) -> int:
        return self._process.pid

    def close(self) -> None:
        """End the child, whatever it does; who waits for it gets nothing."""
        with self._changing:
            self._closed = True
            self._end()

    def sample(self, trials: Sequence[tuple[int, int]]) -> list[Suggestion] | None:
        """Suggestions for trials given as (id, number); None once it is closed.

        Raises OSError where the child cannot reach the storage, StudyFailed where the sampler gives nothing.
        """
        for _ in range(MOST_DEATHS):
            answer = self._ask(SamplingRequest(trials))
            if isinstance(answer, SamplingAnswer):
                return list(answer.suggestions)
            if isinstance(answer, SamplingRefusal) and answer.outage:
                raise OSError(errno.ETIMEDOUT, answer.reason)
            if isinstance(answer, SamplingRefusal):
                raise StudyFailed(answer.reason)
            if not self._restart():
                return None
        numbers = ", ".join(str(number) for _, number in trials)
        raise StudyFailed(
            f"{self._sampler} cannot suggest values for trial {numbers}: its process died {MOST_DEATHS} times"
        )

    def _ask(self, request: SamplingRequest) -> SamplingAnswer | SamplingRefusal | None:
        """The answer; None where the child is dead."""
        connection = self._connection
        if connection is None:
            return None
        try:
            connection.send(request)
            answer: SamplingAnswer | SamplingRefusal = connection.recv()
        except (EOFError, OSError):
            return None
        return answer

    def _restart(self) -> bool:
        """Start another child; False once this is closed."""
        with self._changing:
            if not self._closed:
                self._end()
                self.start()
            return not self._closed

    def _end(self) -> None:
        self._process.kill()
        self._process.wait()


def _environment() -> dict[str, str]:
    """The agent's, and the way to this very package where it is not installed."""
    root = str(Path(aimlhpo.__file__).parent.parent)
    return {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, [os.environ.get("PYTHONPATH"), root]))}
