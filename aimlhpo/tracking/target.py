"""What a tracking tool has to offer to be told of a study."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Protocol

from aimlhpo.tracking.run import Run


@dataclass(frozen=True)
class StudyState:
    """How the study stands: `ended` is "finished", "stopped", or None while trials run; `best` by metric."""

    finished: int = 0
    best: dict[str, float] = field(default_factory=dict)
    ended: str | None = None


class Target(Protocol):
    """One tracking tool, at one place. Every method may raise anything: then `open` is called before the next call."""

    name: str

    def load(self) -> None:
        """Import what is needed; whatever it raises, `open` raises too."""

    def open(self) -> None:
        """Find out what the tool has of the study."""

    def send(self, run: Run) -> None:
        """Make the tool have all of the run, once; what it has already is left alone."""

    def conclude(self, state: StudyState) -> None:
        """Tell how the study stands."""
