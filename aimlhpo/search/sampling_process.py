"""The agent's end of its sampling process, and the messages that both ends exchange.

Sampling may take seconds of computation. In a process of its own it keeps neither the storage thread nor the main
thread waiting. An agent starts one such process (`sampling_child`), and asks it from its sampling thread. The process
reads the study by itself and writes nothing; it answers with what the agent is to write. So it may be killed at any
time: a new one that is asked the same gives the same answer, as each trial has its own seed.
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

MOST_DEATHS = 3  # of the process in a row, over the same trials


@dataclass(frozen=True)
class SamplingRequest:
    """Trials to be sampled, as (trial id, number)."""

    trials: Sequence[tuple[int, int]]


@dataclass(frozen=True)
class Suggestion:
    """The user's values for a trial, and the operations that write them to the storage."""

    number: int
    values: dict[str, Any]
    operations: list[Operation]


@dataclass(frozen=True)
class SamplingAnswer:
    """One suggestion for each trial of the request, in its order."""

    suggestions: Sequence[Suggestion]


@dataclass(frozen=True)
class SamplingRefusal:
    """Why there are no suggestions; after an `outage` of the storage it is worth asking again."""

    reason: str
    outage: bool


def needs_process(sampler: BaseSampler) -> bool:
    """Whether trials are sampled in a process of their own.

    This is so for the samplers of Optuna that use the study's history. Samplers of other packages run in the agent, as
    they may learn from `after_trial`, which is called there.
    """
    sampler = sampler.inner if isinstance(sampler, BoundedSampler) else sampler
    of_optuna = type(sampler).__module__.startswith("optuna.samplers")
    return of_optuna and not isinstance(sampler, RandomSampler | QMCSampler)


class SamplingProcess:
    """Asks a child process for suggestions. The child lives from `start` to `close`.

    `start` and `sample` are called by one thread; `close` may be called by another one, to end what that one waits for.
    """

    def __init__(self, config: Config, sampler: str) -> None:
        """`sampler` is the sampler's name in messages."""
        self._config, self._sampler = config, sampler
        self._closed = False
        self._changing = threading.Lock()  # held while the child is ended or replaced
        self._connection: Connection | None = None

    def start(self) -> None:
        self._connection, theirs = Pipe()
        # So that the child finds this very package where it is not installed.
        root = str(Path(aimlhpo.__file__).parent.parent)
        path = os.pathsep.join(filter(None, [os.environ.get("PYTHONPATH"), root]))
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-P", "-m", "aimlhpo.search.sampling_child", str(theirs.fileno()), str(os.getpid())],
                stdin=subprocess.DEVNULL,
                pass_fds=[theirs.fileno()],
                env={**os.environ, "PYTHONPATH": path},
                start_new_session=True,
            )
        with suppress(OSError):  # it is dead already: the first request finds that out
            self._connection.send(self._config)

    @property
    def pid(self) -> int:
        return self._process.pid

    def close(self) -> None:
        """Kill the child. A call of `sample` that waits for it returns None."""
        with self._changing:
            self._closed = True
            self._kill()

    def sample(self, trials: Sequence[tuple[int, int]]) -> list[Suggestion] | None:
        """Suggestions for trials given as (id, number); None once this is closed.

        A child that dies is replaced, MOST_DEATHS - 1 times. Raises OSError where the child cannot reach the storage,
        StudyFailed where the sampler gives no values.
        """
        for _ in range(MOST_DEATHS):
            answer: SamplingAnswer | SamplingRefusal | None = None
            if self._connection is not None:
                with suppress(EOFError, OSError):  # the child is dead
                    self._connection.send(SamplingRequest(trials))
                    answer = self._connection.recv()
            if isinstance(answer, SamplingAnswer):
                return list(answer.suggestions)
            if isinstance(answer, SamplingRefusal):
                raise OSError(errno.ETIMEDOUT, answer.reason) if answer.outage else StudyFailed(answer.reason)
            with self._changing:
                if self._closed:
                    return None
                self._kill()
                self.start()
        numbers = ", ".join(str(number) for _, number in trials)
        raise StudyFailed(
            f"{self._sampler} cannot suggest values for trial {numbers}: its process died {MOST_DEATHS} times"
        )

    def _kill(self) -> None:
        self._process.kill()
        self._process.wait()
