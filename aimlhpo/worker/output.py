"""The worker's standard output and error: what one trial closes, the next one finds open again."""

from __future__ import annotations

import os
import sys
from typing import TextIO


class Output:
    """Remembers where the log is; made before any user code runs."""

    def __init__(self) -> None:
        self._log = os.dup(1)  # standard output and error are one file

    def restore(self) -> None:
        """Open again what was closed; what user code put in place of it stays."""
        for number in (1, 2):
            if not _is_open(number):
                os.dup2(self._log, number)
        sys.stdout = _usable(sys.stdout, 1)
        sys.stderr = _usable(sys.stderr, 2)


def _is_open(number: int) -> bool:
    try:
        os.fstat(number)
    except OSError:
        return False
    return True


def _usable(stream: TextIO | None, number: int) -> TextIO:
    if stream is None or getattr(stream, "closed", False):
        return open(number, "w", buffering=1, encoding="utf-8", errors="backslashreplace", closefd=False)
    return stream
