"""What a program prints: lines that hold a JSON object are metrics and reports, all others are left alone. Pure."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

STEP_KEYS = ("step", "epoch", "iteration")
MARK = b"\x1e"  # stands in front of what aimlhpo.report writes, also behind an unfinished line
_LONGEST = 1_000_000  # bytes; a longer line is no record
_LAST_STEP = 2**31 - 1  # what every storage can hold


class Records:
    """Finds the JSON objects in a stream of bytes."""

    def __init__(self) -> None:
        self._rest = b""

    def feed(self, data: bytes) -> Iterator[dict[str, Any]]:
        """The objects that the bytes complete, in order."""
        *lines, self._rest = (self._rest + data).split(b"\n")
        if len(self._rest) > _LONGEST:
            self._rest = self._rest[-1:]
        yield from (record for line in lines if (record := _parse(line)) is not None)

    def end(self) -> Iterator[dict[str, Any]]:
        """The object in a last line without a line break."""
        yield from self.feed(b"\n")


def _parse(line: bytes) -> dict[str, Any] | None:
    text = line.strip().rpartition(MARK)[2].rpartition(b"\r")[2].strip()
    if not (text.startswith(b"{") and text.endswith(b"}")):
        return None
    try:
        record = json.loads(text)
    except (ValueError, RecursionError):
        return None
    return record if isinstance(record, dict) else None


def step_of(record: Mapping[str, Any]) -> int | None:
    """The step that a record is a report of: `step`, else `epoch`, else `iteration`; None where it has none."""
    for key in STEP_KEYS:
        value = record.get(key)
        if isinstance(value, float) and value.is_integer():
            value = int(value)
        if isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= _LAST_STEP:
            return value
    return None


def number(value: Any) -> float | None:
    """The number that can be reported, or None."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        return float(value)
    except OverflowError:
        return None
