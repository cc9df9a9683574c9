"""Files that a reader finds either as they were or complete, never half-written."""

from __future__ import annotations

import os
import socket
import time
import uuid
from contextlib import suppress
from pathlib import Path

ABANDONED_AFTER = 3600.0  # seconds; a temporary file this old was left by a writer that was killed


def replace_file(path: Path, text: str, mode: int = 0o644, *, lasting: bool = True) -> None:
    """Replace `path` by a file that holds `text` (UTF-8). Any number of writers may do so at once.

    A `lasting` file is on the disk when this returns; one that is not survives the process, but not the machine.
    Raises OSError, for example when the disk is full; the old file is then still there, whole.
    """
    temporary = path.with_name(f".{path.name}.{socket.gethostname()}.{uuid.uuid4().hex}.tmp")
    try:
        _write(temporary, text, mode, lasting)
        os.replace(temporary, path)
    except BaseException:
        with suppress(FileNotFoundError):
            temporary.unlink()
        raise
    if lasting:
        _sync_directory(path.parent)
        _sweep(path)


def _write(path: Path, text: str, mode: int, lasting: bool) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
    with open(descriptor, "wb") as file:
        file.write(text.encode("utf-8", errors="backslashreplace"))
        if lasting:
            file.flush()
            os.fsync(file.fileno())


def _sync_directory(directory: Path) -> None:
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        with suppress(OSError):  # some network file systems cannot sync a directory
            os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _sweep(path: Path) -> None:
    """Remove what writers that were killed in the middle have left behind."""
    limit = time.time() - ABANDONED_AFTER
    for leftover in path.parent.glob(f".{path.name}.*.tmp"):
        with suppress(OSError):  # another writer sweeps too
            if leftover.stat().st_mtime < limit:
                leftover.unlink()
