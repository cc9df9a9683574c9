"""Which one of all agents stays for the last running trials, while the others end and give their nodes back."""

from __future__ import annotations

import os
from pathlib import Path
from types import TracebackType

from aimlhpo.locks import open_lock_file, try_lock


class Waiter:
    """An election by file lock: whoever holds it waits; the kernel frees it with its holder's end."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._fd = -1
        self._elected = False

    def __enter__(self) -> Waiter:
        self._fd = open_lock_file(self._path)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        os.close(self._fd)

    def elected(self) -> bool:
        """Whether this agent is the one that waits."""
        self._elected = self._elected or try_lock(self._fd)
        return self._elected
