"""What an objective changed in its configuration in place, as colon paths and values."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import suppress
from typing import Any

from aimlhpo.plain_data import plain

_OURS = "optuna"


def changes(before: Mapping[str, Any], after: Mapping[str, Any]) -> dict[str, Any]:
    """Every path whose value was added or changed to plain data; the study's own part is left out."""
    found: dict[str, Any] = {}
    for path, value in _walk(before, after, ""):
        if not path.startswith(_OURS + ":"):
            with suppress(TypeError, ValueError, RecursionError):
                found[path] = plain(value)
    return found


def _walk(before: Any, after: Any, path: str) -> Iterator[tuple[str, Any]]:
    if isinstance(before, Mapping) and isinstance(after, Mapping):
        for key, value in after.items():
            inner = f"{path}:{key}" if path else str(key)
            yield from _walk(before[key], value, inner) if key in before else [(inner, value)]
    elif not _equal(before, after):
        yield path, after


def _equal(before: Any, after: Any) -> bool:
    """Compare without tripping over values whose == gives no plain truth value, such as arrays."""
    try:
        return type(before) is type(after) and bool(before == after)
    except (TypeError, ValueError, RuntimeError):
        return False
