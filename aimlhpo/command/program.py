"""One run of a program: started without a shell, its output passed on and read, stopped gently and then for certain."""

from __future__ import annotations

import os
import selectors
import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from types import FrameType, TracebackType
from typing import IO, Any

from aimlhpo.command import family
from aimlhpo.command.output import MARK, Records
from aimlhpo.command.spec import CommandSpec

_TICK = 0.2  # seconds between two looks at the clock and at the newest decision
_PAUSE = 0.02  # seconds between two looks at processes that nothing tells of
_CHUNK = 65536
_TAIL = 8192  # bytes of stderr that are kept


class Program:
    """A running program. `tail` is the end of what it wrote to stderr; `told` says whether others have sent it SIGTERM.

    It stays in the worker's process group, so that whoever kills that group kills it too.
    """

    def __init__(
        self,
        spec: CommandSpec,
        arguments: Sequence[str],
        variables: dict[str, str],
        told: Callable[[], bool] = lambda: False,
    ) -> None:
        """Raises OSError where it cannot be started."""
        self.tail = b""
        self._patience, self._told = spec.patience, told
        self._records = Records()
        self._deadline: float | None = None
        self._process = subprocess.Popen(
            arguments,
            cwd=spec.working_directory,
            env={**spec.environment(), **variables},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            bufsize=0,
        )
        self._selector = selectors.DefaultSelector()
        for stream, output in ((self._process.stdout, 1), (self._process.stderr, 2)):
            self._selector.register(stream, selectors.EVENT_READ, output)  # type: ignore[arg-type]

    def __enter__(self) -> Program:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End everything that the program has started and that still runs."""
        if self._process.poll() is None:
            self._process.kill()
            self._process.wait()
        family.clear_away()
        self._selector.close()
        for stream in (self._process.stdout, self._process.stderr):
            if stream is not None:
                stream.close()

    @property
    def stopping(self) -> bool:
        return self._deadline is not None

    def stop(self) -> None:
        """Send SIGTERM; SIGKILL follows by itself when the patience is over."""
        if self._deadline is None:
            self._deadline = time.monotonic() + self._patience
            family.send(signal.SIGTERM)

    def events(self) -> Iterator[dict[str, Any] | None]:
        """Each object that the program prints, and None now and then, until it has ended."""
        while self._process.poll() is None or self._others_may_end():
            yield from self._take(_TICK)
            yield None
            if self._deadline is not None and time.monotonic() >= self._deadline:
                family.send(signal.SIGKILL)
        family.clear_away()  # its children may hold its output open
        while self._selector.get_map():
            yield from self._take(0)
        yield from self._records.end()

    def _others_may_end(self) -> bool:
        """Whether what it has started has time to end by itself: a shell dies at once of what its child handles."""
        if self._deadline is None and self._told():
            self._deadline = time.monotonic() + self._patience
        return self._deadline is not None and time.monotonic() < self._deadline and bool(family.descendants())

    def code(self) -> int:
        """How it ended: its exit code, or minus the signal that killed it."""
        return self._process.wait()

    def _take(self, timeout: float) -> Iterator[dict[str, Any]]:
        """What is there to read; a program may close its output long before it ends."""
        if not self._selector.get_map():
            self._wait_for_end(timeout)
            return
        for key, _ in self._selector.select(timeout):
            stream: IO[bytes] = key.fileobj  # type: ignore[assignment]
            data = stream.read(_CHUNK)
            if not data:
                self._selector.unregister(stream)
            elif key.data == 2:
                self.tail = (self.tail + data)[-_TAIL:]
                pass_on(2, data)
            else:
                pass_on(1, data.replace(MARK, b""))
                yield from self._records.feed(data)

    def _wait_for_end(self, timeout: float) -> None:
        if self._process.poll() is not None:  # the others go on
            time.sleep(_PAUSE)
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(timeout)


def pass_on(descriptor: int, data: bytes) -> None:
    """Write all of it to the worker's log; what a full disk does not take is lost, and the training goes on."""
    with suppress(OSError):
        while data:
            data = data[os.write(descriptor, data) :]


@contextmanager
def patient_worker() -> Iterator[Callable[[], bool]]:
    """Outlive a SIGTERM to the group until the program has ended; gives whether there was one."""
    seen: list[int] = []

    def note(number: int, frame: FrameType | None) -> None:
        seen.append(number)

    previous = signal.signal(signal.SIGTERM, note)
    try:
        yield lambda: bool(seen)
    finally:
        signal.signal(signal.SIGTERM, previous)
