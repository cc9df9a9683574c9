"""One thread that does all work on the storage, in order, so that the agent always answers.
The agent's sampling process, asked from a thread of its own, so that neither seats nor results wait for it.
Who works for the desk: the clerk, and beside it the sampling process where sampling may take long.
"""

from __future__ import annotations

import gc
import os
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from queue import Empty, SimpleQueue
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from aimlhpo.errors import StudyFailed
from aimlhpo.ledger.requests import Claim
from aimlhpo.search.sampling import SamplingProcess, Suggestion, needs_process
from aimlhpo.storage.retry import RetryPolicy

if TYPE_CHECKING:
    from optuna.samplers import BaseSampler

    from aimlhpo.config.schema import Config

Task = Callable[[], Any]
Then = Callable[[Any], None]


class SerialExecutor:
    """Runs jobs one after another in a thread; what follows from each runs in the thread that calls `deliver`.

    Jobs must be safe to repeat: they are, while the storage is away. Other errors are raised by `deliver`.
    """

    def __init__(self, patience: RetryPolicy) -> None:
        self._jobs: SimpleQueue[tuple[Task, Then] | None] = SimpleQueue()
        self._done: SimpleQueue[tuple[Then, Any]] = SimpleQueue()
        self._wake_read, self._wake_write = os.pipe()
        self._patience = patience
        self._thread = threading.Thread(target=self._run, name="clerk", daemon=True)
        self._broken = threading.Event()
        self._open = 0

    def __enter__(self) -> SerialExecutor:
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

    def submit(self, job: Task, then: Then = lambda _: None) -> None:
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

    def _result(self, job: Task) -> Any:
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


class SamplingThread:
    """Answers as a clerk does: what follows runs in the thread that calls `deliver`."""

    def __init__(self, config: Config, sampler: str, patience: RetryPolicy) -> None:
        self._process, self._clerk = SamplingProcess(config, sampler), SerialExecutor(patience)

    def __enter__(self) -> Self:
        self._process.start()
        self._clerk.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._process.close()
        self._clerk.__exit__(kind, error, trace)

    def ask(self, claims: Sequence[Claim], then: Callable[[list[Suggestion] | None], None]) -> None:
        """Suggest parameters; `then` gets None where the process was stopped instead."""
        trials = [(claim.trial_id, claim.number) for claim in claims]
        self._clerk.submit(partial(self._process.sample, trials), then)

    def stop(self) -> None:
        """Wait for nothing any more."""
        self._process.close()

    def fileno(self) -> int:
        return self._clerk.fileno()

    def deliver(self) -> None:
        self._clerk.deliver()

    @property
    def idle(self) -> bool:
        return self._clerk.idle


class StorageThreads:
    """At work from entry to exit; `samplers` is None where the clerk samples."""

    def __init__(self, config: Config, sampler: BaseSampler, patience: RetryPolicy) -> None:
        self.clerk = SerialExecutor(patience)
        self.samplers = SamplingThread(config, str(sampler), patience) if needs_process(sampler) else None
        self._all: list[SerialExecutor | SamplingThread] = [self.clerk, *([self.samplers] if self.samplers else [])]

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            for each in self._all:
                stack.enter_context(each)
            self._at_work = stack.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._at_work.__exit__(kind, error, trace)

    def filenos(self) -> list[int]:
        """Where answers are waited for."""
        return [each.fileno() for each in self._all]

    def deliver(self) -> None:
        """Run what follows from the answers that are there. Raises what a job raised."""
        for each in self._all:
            each.deliver()

    def stop_sampling(self) -> None:
        """Wait for no suggestion any more."""
        if self.samplers is not None:
            self.samplers.stop()


_SWITCH = 0.0005  # seconds; Python's own 0.005 is waited several times for each trial that ends


@contextmanager
def prompt() -> Iterator[None]:
    """Let no other thread keep the main one waiting for long."""
    usual = sys.getswitchinterval()
    sys.setswitchinterval(_SWITCH)
    try:
        yield
    finally:
        gc.unfreeze()
        sys.setswitchinterval(usual)


def keep_all() -> None:
    """Spare the garbage collector what is there now, a loaded study: looking through it stops all threads."""
    gc.freeze()
