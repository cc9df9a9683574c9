"""Signals of the operating system and of SLURM, turned into reasons to stop."""

from __future__ import annotations

import os
import signal
from collections.abc import Mapping
from types import FrameType, TracebackType

LOCAL = {
    signal.SIGINT: "stopped by user",
    signal.SIGTERM: "stopped by user",
    signal.SIGHUP: "stopped by user",
}


class SignalTrap:
    """Notes the first signal that came, and wakes whoever waits on `fileno`."""

    def __init__(self, causes: Mapping[signal.Signals, str]) -> None:
        self._causes = causes
        self._previous: dict[int, object] = {}
        self._read, self._write = os.pipe()
        os.set_blocking(self._write, False)
        self.cause: str | None = None

    def __enter__(self) -> SignalTrap:
        for number in self._causes:
            self._previous[number] = signal.signal(number, self._note)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)  # type: ignore[arg-type]
        os.close(self._read)
        os.close(self._write)

    def fileno(self) -> int:
        return self._read

    def clear(self) -> None:
        os.read(self._read, 1)

    def _note(self, number: int, frame: FrameType | None) -> None:
        if self.cause is None:
            self.cause = self._causes[signal.Signals(number)]
            os.write(self._write, b".")
