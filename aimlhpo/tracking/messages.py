"""What an agent and the child that tells its tracking tools say to each other over a pipe."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class FinishTracking:
    """To the child: send what is left, answer Done and end. `ended` as in StudyState."""

    ended: str


@dataclass(frozen=True)
class LogLine:
    """To the agent: a line for the user."""

    text: str


@dataclass(frozen=True)
class TrackingReady:
    """To the agent: everything is loaded, and nobody else tells the tools; from now on it is they that take time."""


@dataclass(frozen=True)
class Moved:
    """To the agent: something has arrived at a tool."""


@dataclass(frozen=True)
class TrackingDone:
    """To the agent: what the tools still lack, a line for each."""

    lacks: list[str]
