"""What a kind of search-space parameter is made of."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from aimlhpo.config.values import as_number
from aimlhpo.suggestions import show

Settings = Mapping[str, Any]
Found = tuple[str, str, str | None]  # the setting, what was found, what is legal
MOST_VALUES = 100_000


@dataclass(frozen=True)
class Domain:
    """One kind: its settings beside `name`, a check of settings that are all there, and what it means."""

    required: tuple[str, ...]
    optional: tuple[str, ...]
    check: Callable[[Settings], Iterator[Found]]
    meaning: str
    values: Callable[[Settings], list[Any]] | None = None
    """All values of a finite kind that is searched by position or by choice."""
    number: type = float

    @property
    def settings(self) -> tuple[str, ...]:
        return ("name", *self.required, *self.optional)


def numbers(settings: Settings, keys: tuple[str, ...], whole: bool) -> Iterator[Found]:
    kind = "a whole number" if whole else "a number"
    for key in keys:
        value = settings.get(key)
        number = as_number(value)
        if number is None and not (key in ("step", "q") and value is None):
            yield key, f"{show(value)} is not a number", kind
        elif whole and isinstance(number, float):
            yield key, f"{show(value)} is not a whole number", kind
