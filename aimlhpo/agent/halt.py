"""Whether the agent is to stop, and why: called by whoever finds a reason, obeyed by the agent's loop."""

from __future__ import annotations

from aimlhpo.errors import AimlhpoError


class Halt:
    """The first reason to stop.

    Attributes:
        cause: why the running trials are given back, in the words stored with them; None while all goes on.
        error: what the study is given up for.
    """

    def __init__(self) -> None:
        self.cause: str | None = None
        self.error: AimlhpoError | None = None

    def call(self, cause: str) -> None:
        self.cause = self.cause or cause

    def give_up(self, error: AimlhpoError) -> None:
        """Stop for an error, which the agent raises in the end."""
        self.error = self.error or error
        self.call("study given up")

    @property
    def called(self) -> bool:
        return self.cause is not None
