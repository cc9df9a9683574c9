"""Why a `type` names no class that can be used."""

from __future__ import annotations


class UnknownClassError(Exception):
    """Told as a problem of the configuration: what was found, what is legal, and a guess at what was meant."""

    def __init__(self, found: str, legal: str, suggestion: str | None = None) -> None:
        self.found, self.legal, self.suggestion = found, legal, suggestion
        super().__init__(found)


def in_one_line(error: BaseException) -> str:
    """An exception's name and the first line of what it says."""
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__
