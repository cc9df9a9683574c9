"""What a stopping rule is, and what it sees of the study."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

from optuna.trial import FrozenTrial

from aimlhpo.backends.backend import OpenTrial


@dataclass(frozen=True)
class Moment:
    """The study besides its ended trials: those that run or wait, and the time in seconds since the epoch."""

    open: Sequence[OpenTrial] = ()
    now: float = field(default_factory=time.time)


class Rule(ABC):
    """A reason to end the study.

    Attributes:
        key: the key of the YAML that sets it.
        limit: what was set, as JSON: a note of an ended study counts for as long as this is the same.
    """

    key: ClassVar[str]
    limit: Any

    def hear(self, signed: Mapping[str, Any]) -> None:  # noqa: B027 -- most rules need nothing of it
        """Learn what the study says of itself: when it was begun and when it was last started, which may change."""

    @abstractmethod
    def take(self, trial: FrozenTrial) -> None:
        """Learn of a trial that has ended. Each is given once, in the order in which they ended."""

    @abstractmethod
    def __call__(self, moment: Moment) -> str | None:
        """Why the study should end, or None."""
