"""A worker's log within a bound: beyond it the middle is dropped, the beginning and the newest lines stay.

A worker and all that it starts append to one file, through descriptors that nothing of ours stands between. The agent
trims the file meanwhile: it copies the newest lines down behind the beginning and cuts the file off behind them, where
the next line is then appended. Only what is written in the instant between the last look and the cut is lost.
"""

from __future__ import annotations

import os
import re
from contextlib import suppress
from pathlib import Path

_MARK_LENGTH = 96
_MARK = re.compile(rb"\n==== aimlhpo has dropped (\d+) bytes here")
_CHUNK = 1 << 20
_LINE = 1 << 16  # bytes in which the end of a line is looked for
_TAIL_BYTES, _LAST_LINES = 8192, 15


class WorkerLog:
    """A log file that may have so many megabytes.

    Positions in it are those that the bytes had when they were written. They stay right when the log is trimmed.
    """

    def __init__(self, path: Path, megabytes: int) -> None:
        self.path, self._limit = path, megabytes * 1_000_000
        self._mark_at = self._moved = 0  # what is behind the mark, if there is one, was so many bytes further on
        with suppress(OSError), open(path, "rb") as file:
            beginning = file.seek(self._limit // 4)
            if found := _MARK.search(file.read(_LINE + _MARK_LENGTH)):
                self._mark_at, self._moved = beginning + found.start(), int(found[1]) - _MARK_LENGTH

    @property
    def end(self) -> int:
        """The position where the next line will begin; 0 where somebody has removed the file."""
        with suppress(OSError):
            return self.path.stat().st_size + self._moved
        return 0

    def offset(self, position: int) -> int | None:
        """Where the byte of that position is now in the file; None where it was dropped."""
        if not self._moved or position < self._mark_at:
            return position
        offset = position - self._moved
        return offset if offset >= self._mark_at + _MARK_LENGTH else None

    def last_lines(self, begin: int) -> str:
        """The end of the log, from position `begin` on."""
        try:
            with open(self.path, "rb") as file:
                size = file.seek(0, os.SEEK_END)
                file.seek(max(self.offset(begin) or 0, size - _TAIL_BYTES))
                return "\n".join(file.read().decode(errors="replace").splitlines()[-_LAST_LINES:])
        except OSError as error:
            return f"(its log cannot be read: {error})"

    def between(self, begin: int, end: int | None, most: int) -> str:
        """The last `most` bytes between two positions (None: its end); empty where that part is not there any more."""
        start, stop = self.offset(begin), None if end is None else self.offset(end)
        if start is None and stop is None:
            return ""
        with suppress(OSError), open(self.path, "rb") as file:
            stop = file.seek(0, os.SEEK_END) if stop is None else stop
            file.seek(max(start or 0, stop - most))
            return file.read(max(0, stop - file.tell())).decode(errors="replace")
        return ""

    def trim(self) -> None:
        """Drop the middle where the log has become too long; a quarter of what is allowed is kept on either side."""
        with suppress(OSError):  # it was removed, or the disk is full: tried again at the next look
            size = self.path.stat().st_size
            if size > self._limit:
                with open(self.path, "r+b", buffering=0) as file:
                    self._drop_middle(file.fileno(), size)

    def _drop_middle(self, file: int, size: int) -> None:
        quarter = self._limit // 4
        mark_at = self._mark_at or _next_line(file, quarter)
        begin, target = _next_line(file, size - quarter), mark_at + _MARK_LENGTH
        moved = self._moved + begin - target
        mark = f"\n==== aimlhpo has dropped {moved + _MARK_LENGTH} bytes here (log: max_mb_per_worker) "
        copied = _copy_down(file, begin, target, self._limit)
        # This waits for the end of what is just being appended, which then is the last that can be missing.
        os.pwrite(file, mark.ljust(_MARK_LENGTH - 1, "=").encode() + b"\n", mark_at)
        while os.fstat(file).st_size > begin + copied and target + copied < self._limit:
            copied += _copy_down(file, begin + copied, target + copied, self._limit)
        os.ftruncate(file, target + copied)
        self._mark_at, self._moved = mark_at, moved


def _copy_down(file: int, source: int, target: int, most: int) -> int:
    """Copy all from one offset on to another before it, up to the offset `most`. Returns the number of bytes."""
    copied = 0
    while target + copied < most and (chunk := os.pread(file, _CHUNK, source + copied)):
        copied += os.pwrite(file, chunk, target + copied)
    return copied


def _next_line(file: int, offset: int) -> int:
    """The offset of the first line that begins there or soon after; within one long line, the same offset."""
    return offset + max(0, os.pread(file, _LINE, offset - 1).find(b"\n"))
