"""A storage around another one: all that it does not define itself goes to the storage inside."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from optuna.storages import BaseStorage


def _passing_on(name: str) -> Callable[..., Any]:
    def method(self: Any, *arguments: Any, **named: Any) -> Any:
        return getattr(self.inner, name)(*arguments, **named)

    return method


PassingOn: type[BaseStorage] = type(
    "PassingOn", (BaseStorage,), {name: _passing_on(name) for name in BaseStorage.__abstractmethods__}
)
"""Everything that BaseStorage asks for, passed on to `self.inner`."""
