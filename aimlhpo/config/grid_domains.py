"""The kinds of parameters that make a study a full grid: every combination of their values is run once."""

from __future__ import annotations

from collections.abc import Iterator
from decimal import Decimal
from typing import Any

from aimlhpo.config.domain import MOST_VALUES, Domain, Found, Settings, numbers
from aimlhpo.config.values import as_number
from aimlhpo.suggestions import show


def _single(settings: Settings) -> Iterator[Found]:
    yield from ()


def _multiple(settings: Settings) -> Iterator[Found]:
    values = settings["values"]
    if not isinstance(values, list) or not values:
        yield "values", f"{show(values)} is not a list of values", "at least one value: [1, 2, 3]"
        return
    for index, value in enumerate(values):
        if value != value:
            yield "values", "nan is not a value", "strings, numbers, booleans, null or lists"
        elif value in values[:index]:
            yield "values", f"{show(value)} is given twice", "each value once"


def _linear(settings: Settings) -> Iterator[Found]:
    found = list(numbers(settings, ("start", "end"), False))
    step = as_number(settings["step"])
    if step is None or step <= 0:
        found.append(("step", f"{show(settings['step'])} is not a positive number", "more than 0"))
    yield from found
    if found or step is None:
        return
    start, end = as_number(settings["start"]) or 0, as_number(settings["end"]) or 0
    if start > end:
        yield "start", f"{show(start)} is greater than end, {show(end)}", "start <= end"
    elif (end - start) / step >= MOST_VALUES:
        yield "step", f"{show(step)} makes more than {MOST_VALUES} values", "a wider step"


def _logspace(settings: Settings) -> Iterator[Found]:
    found = [*numbers(settings, ("start", "end"), False), *_count(settings)]
    base = as_number(settings.get("base", 10))
    if base is None or base <= 0 or base == 1:
        found.append(("base", f"{show(settings['base'])} is not a base of powers", "a number more than 0, not 1"))
    yield from found
    if found:
        return
    try:
        values = power_values(settings)
    except OverflowError:
        yield "end", f"{show(base)} to the power of {show(settings['end'])} is no number any more", "smaller exponents"
        return
    if len(set(values)) < len(values):
        yield "count", f"{show(settings['count'])} different values do not fit from start to end", "count: 1"


def _random(settings: Settings) -> Iterator[Found]:
    yield from _count(settings)


def _count(settings: Settings) -> Iterator[Found]:
    count = as_number(settings["count"])
    if not isinstance(count, int) or not 1 <= count <= MOST_VALUES:
        yield "count", f"{show(settings['count'])} is not a count", f"a whole number from 1 to {MOST_VALUES}"


def _value(settings: Settings) -> list[Any]:
    return [settings["value"]]


def _values(settings: Settings) -> list[Any]:
    return list(settings["values"])


def stepped_values(settings: Settings) -> list[Any]:
    """From start in steps up to end, which is included where a step meets it; 0.1 + 0.2 is 0.3 here."""
    start, end, step = (Decimal(str(as_number(settings[key]))) for key in ("start", "end", "step"))
    values = [start + step * index for index in range(int((end - start) / step) + 1)]
    whole = all(value == value.to_integral_value() for value in (start, step))
    return [int(value) if whole else float(value) for value in values]


def power_values(settings: Settings) -> list[Any]:
    """The base to the power of `count` exponents from start to end; whole numbers stay whole."""
    base, start, end = (as_number(settings.get(key, 10)) or 0 for key in ("base", "start", "end"))
    count = int(as_number(settings["count"]) or 0)
    exponents = [start + (end - start) * index / max(1, count - 1) for index in range(count)]
    whole = isinstance(base, int) and all(exponent >= 0 and exponent == int(exponent) for exponent in exponents)
    return [base ** int(exponent) if whole else float(base) ** exponent for exponent in exponents]


GRID_DOMAINS: dict[str, Domain] = {
    "single": Domain(("value",), (), _single, "grid: `value` alone", _value),
    "multiple": Domain(("values",), (), _multiple, "grid: each of `values`", _values),
    "linear": Domain(
        ("start", "end", "step"), (), _linear, "grid: numbers from `start` to `end` in steps of `step`", stepped_values
    ),
    "logspace": Domain(
        ("start", "end", "count"),
        ("base",),
        _logspace,
        "grid: `base` (10 where not given) to the power of `count` exponents from `start` to `end`",
        power_values,
    ),
    "random": Domain(
        ("distribution", "count"),
        (),
        _random,
        "grid: `count` values drawn once from `distribution` ({type: ..., settings: ...})",
    ),
}
