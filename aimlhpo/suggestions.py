"""How a mistake is told: where it stands, what it looks like, and which word was probably meant."""

from __future__ import annotations

import json
from collections.abc import Iterable
from difflib import get_close_matches
from typing import Any

LONGEST = 60


def key_path(*segments: object) -> str:
    """The way to a key as it is written in messages: `optuna: sampler: type`."""
    return ": ".join(str(segment) for segment in segments)


def did_you_mean(word: object, candidates: Iterable[str], cutoff: float = 0.6) -> str | None:
    """The candidate nearest to `word`, upper and lower case alike, or None where nothing is near."""
    by_lower = {candidate.lower(): candidate for candidate in candidates}
    matches = get_close_matches(str(word).lower(), by_lower, n=1, cutoff=cutoff)
    return by_lower[matches[0]] if matches else None


def show(value: Any) -> str:
    """A value as a person would write it in YAML, cut short where it is long."""
    text = repr(value) if isinstance(value, str) else _json(value)
    return text if len(text) <= LONGEST else f"{text[: LONGEST - 3]}..."


def _json(value: Any) -> str:
    try:
        return json.dumps(value, default=str)
    except ValueError:
        return str(value)


def listing(words: Iterable[str]) -> str:
    """Legal words, in one line."""
    return ", ".join(words)
