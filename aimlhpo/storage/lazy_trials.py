"""Python's garbage collector, out of the way while a study is read.
Finished trials whose bulk is read when somebody asks for it: most readers of a large study never do.
"""

from __future__ import annotations

import gc
import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Protocol

from optuna.trial import FrozenTrial


@contextmanager
def collection_paused() -> Iterator[None]:
    """Make many objects that all stay: looking through them again and again doubles the time of reading them."""
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()


_ATTRS = ("_user_attrs", "_system_attrs")
_CURVE = "intermediate_values"


class Curves(Protocol):
    """Where intermediate values lie until somebody asks for them."""

    def read(self, trial: LazyTrial) -> None:
        """Set the trial's intermediate values; those of others may be set as well."""


class LazyTrial(FrozenTrial):
    """A trial with its attributes still as JSON texts, and its reports still in the storage.

    Copies (copy, deepcopy, pickle) are plain FrozenTrials with everything in them.
    """

    __slots__ = ("_json", "curves")
    _json: dict[str, Sequence[tuple[str, str]]]
    curves: Curves

    @classmethod
    def of(
        cls,
        user_attrs: Sequence[tuple[str, str]],
        system_attrs: Sequence[tuple[str, str]],
        curves: Curves,
        **known: Any,
    ) -> LazyTrial:
        """Attributes are (key, JSON text); `known` are the other arguments of FrozenTrial."""
        trial = cls(user_attrs={}, system_attrs={}, intermediate_values={}, value=None, **known)
        for name in (*_ATTRS, _CURVE):
            del trial.__dict__[name]
        trial._json = {"_user_attrs": user_attrs, "_system_attrs": system_attrs}
        trial.curves = curves
        return trial

    def __getattr__(self, name: str) -> Any:
        """What is not there yet."""
        if name in _ATTRS:
            self._read(name)
        elif name == _CURVE:
            self.curves.read(self)
        else:
            raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")
        return self.__dict__[name]

    def _read(self, name: str) -> None:
        texts = self._json.get(name)  # gone where another thread has read them meanwhile
        if texts is not None:
            self.__dict__[name] = {key: json.loads(text) for key, text in texts}
            self._json.pop(name, None)

    def unread(self, name: str) -> Sequence[tuple[str, str]] | None:
        """`_user_attrs` or `_system_attrs` as they were given, where nobody has read them yet."""
        return self._json.get(name)

    @property
    def has_curve(self) -> bool:
        """Whether the intermediate values have been read."""
        return _CURVE in self.__dict__

    def plain(self) -> FrozenTrial:
        """The same as Optuna's own class, with everything read."""
        trial = FrozenTrial.__new__(FrozenTrial)
        for name in (*_ATTRS, _CURVE):
            getattr(self, name)
        trial.__dict__.update(self.__dict__)
        return trial

    def __reduce__(self) -> tuple[Any, ...]:
        return FrozenTrial.__new__, (FrozenTrial,), self.plain().__dict__

    def __eq__(self, other: Any) -> bool:
        return self.plain() == (other.plain() if isinstance(other, LazyTrial) else other)

    def __hash__(self) -> int:
        return hash(self.plain())

    def __repr__(self) -> str:
        return repr(self.plain())
