"""Which one of all agents does what only one should do: wait for the last trials, tell tracking tools of them."""

from __future__ import annotations

import os
from pathlib import Path
from types import TracebackType

from aimlhpo.locks import open_lock_file, try_lock


class Election:
    """An election by file lock: whoever holds it is elected; the kernel frees it with its holder's end."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._fd = -1
        self._won = False

    def __enter__(self) -> Election:
        self._fd = open_lock_file(self._path)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        os.close(self._fd)

    def won(self) -> bool:
        """Whether this agent is the one."""
        self._won = self._won or try_lock(self._fd)
        return self._won

    def resign(self) -> None:
        """Let the others know that this agent will soon be gone: `is_vacant_soon` says so to them."""
        os.ftruncate(self._fd, 1)

    def begin(self) -> None:
        """The opposite of `resign`, for whoever has won."""
        os.ftruncate(self._fd, 0)

    def is_vacant_soon(self) -> bool:
        """Whether the one that is elected has resigned."""
        return os.fstat(self._fd).st_size > 0
