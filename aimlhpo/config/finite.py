"""The values of parameters that have finitely many, and drawing some of any."""

from __future__ import annotations

import math
import random
from collections.abc import Callable
from typing import Any

from aimlhpo.config.domain import MOST_VALUES
from aimlhpo.config.domains import DOMAINS, Settings
from aimlhpo.config.grid_domains import stepped_values
from aimlhpo.config.values import as_number


def finite_values(kind: str, settings: Settings) -> list[Any] | None:
    """All values of a (correct) parameter in order, or None where there are infinitely many or too many to list."""
    values = DOMAINS[kind].values
    if values is not None:
        return values(settings)
    return None if kind == "random" else _steps(kind, settings)


def _steps(kind: str, settings: Settings) -> list[Any] | None:
    given = as_number(settings.get("q" if kind == "discrete_uniform" else "step"))
    step = given or (1 if DOMAINS[kind].number is int else None)
    if step is None or (_number(settings, "high") - _number(settings, "low")) / step >= MOST_VALUES:
        return None
    values = stepped_values({"start": settings["low"], "end": settings["high"], "step": step})
    return [DOMAINS[kind].number(value) for value in values]


def draw(kind: str, settings: Settings, count: int, seed: str) -> list[Any]:
    """`count` values of a (correct) parameter at random, all different; the same ones for the same seed."""
    source = random.Random(seed)
    values = finite_values(kind, settings)
    if values is not None:
        weight: Callable[[Any], float] = (lambda value: 1 / value) if _is_log(kind, settings) else (lambda value: 1)
        return sorted(values, key=lambda value: source.random() ** (1 / weight(value)), reverse=True)[:count]
    drawn: dict[Any, None] = {}
    while len(drawn) < count:
        drawn[_draw_one(kind, settings, source)] = None
    return list(drawn)


def _draw_one(kind: str, settings: Settings, source: random.Random) -> Any:
    low, high = _number(settings, "low"), _number(settings, "high")
    if _is_log(kind, settings):
        value = math.exp(source.uniform(math.log(low), math.log(high)))
    else:
        value = source.uniform(low, high)
    value = min(max(value, low), high)
    return round(value) if DOMAINS[kind].number is int else float(value)


def _is_log(kind: str, settings: Settings) -> bool:
    """Whether an equal share of the values is drawn from each factor of ten."""
    return kind in ("loguniform", "log_int") or bool(settings.get("log", False))


def _number(settings: Settings, key: str) -> int | float:
    return as_number(settings[key]) or 0
