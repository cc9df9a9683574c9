"""The kinds of search-space parameters: which settings each takes, and what is wrong with given ones."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

from aimlhpo.config.domain import MOST_VALUES, Domain, Found, Settings, numbers
from aimlhpo.config.grid_domains import GRID_DOMAINS
from aimlhpo.config.values import as_number
from aimlhpo.suggestions import show

__all__ = ["DOMAINS", "Domain", "Settings", "choices", "linear_values", "log_values"]


def _range(settings: Settings, step: str, whole: bool) -> Iterator[Found]:
    """Low to high, with an optional step, on a linear or logarithmic scale."""
    found = list(numbers(settings, ("low", "high", step), whole))
    yield from found
    if found:
        return
    low, high = as_number(settings["low"]), as_number(settings["high"])
    if low is not None and high is not None and low > high:
        yield "low", f"{show(low)} is greater than high, {show(high)}", "low <= high"
    width = as_number(settings.get(step))
    if width is not None and width <= 0:
        yield step, f"{show(width)} is not positive", "more than 0"
    if width is None and step == "q":
        yield step, "null is not a number", "more than 0"


def _log(settings: Settings, smallest: float) -> Iterator[Found]:
    """What a logarithmic scale asks for beyond a range."""
    low = as_number(settings["low"])
    if low is not None and (low < smallest or low <= 0):
        bound = "low > 0" if smallest == 0 else f"low >= {smallest:g}"
        yield "low", f"{show(low)} has no place on a logarithmic scale", bound


def _yes_or_no(settings: Settings, key: str) -> Iterator[Found]:
    if settings.get(key, False) not in (True, False):
        yield key, f"{show(settings[key])} is not yes or no", "true or false"


def _maybe_log(settings: Settings, smallest: float) -> Iterator[Found]:
    yield from _yes_or_no(settings, "log")
    if settings.get("log", False) in (1, True):
        yield from _log(settings, smallest)
        if as_number(settings.get("step")) not in (None, 1 if smallest else None):
            yield "step", "a logarithmic scale has no steps", "log or step, not both"


def _float(settings: Settings) -> Iterator[Found]:
    yield from _range(settings, "step", whole=False)
    yield from _maybe_log(settings, 0)


def _int(settings: Settings) -> Iterator[Found]:
    yield from _range(settings, "step", whole=True)
    yield from _maybe_log(settings, 1)


def _log_int(settings: Settings) -> Iterator[Found]:
    yield from _range(settings, "step", whole=True)
    yield from _log(settings, 1)


def _loguniform(settings: Settings) -> Iterator[Found]:
    yield from _range(settings, "step", whole=False)
    yield from _log(settings, 0)


def _uniform(settings: Settings) -> Iterator[Found]:
    yield from _range(settings, "step", whole=False)


def _discrete(settings: Settings) -> Iterator[Found]:
    yield from _range(settings, "q", whole=False)


def _categorical(settings: Settings) -> Iterator[Found]:
    choices = settings["choices"]
    if not isinstance(choices, list):
        yield "choices", f"{show(choices)} is not a list", "a list of values"
        return
    if not choices:
        yield "choices", "is an empty list", "at least one value"
    for index, choice in enumerate(choices):
        if isinstance(choice, float) and math.isnan(choice):
            yield "choices", "nan is not a choice", "strings, numbers, booleans, null or lists"
        elif choice in choices[:index]:
            first = choices[choices.index(choice)]
            same = "is given twice" if type(first) is type(choice) else f"equals {show(first)}"
            yield "choices", f"{show(choice)} {same}", "each value once"


def _ordinal(settings: Settings) -> Iterator[Found]:
    found = list(_categorical(settings))
    yield from found
    if found:
        return
    numbers = [as_number(choice) for choice in settings["choices"]]
    for choice, number in zip(settings["choices"], numbers, strict=True):
        if number is None or isinstance(choice, str):
            yield "choices", f"{show(choice)} is not a number", "numbers in order, or the type categorical"
            return
    if numbers != sorted(number for number in numbers if number is not None):
        yield "choices", f"{show(settings['choices'])} is not in order", "numbers in rising order"


def _log_ordinal(settings: Settings) -> Iterator[Found]:
    found = list(_ordinal(settings))
    yield from found
    if not found and settings["choices"][0] <= 0:
        yield "choices", f"{show(settings['choices'][0])} has no place on a logarithmic scale", "numbers more than 0"


def _finrange(settings: Settings) -> Iterator[Found]:
    yield from _yes_or_no(settings, "cast_int")
    found = [*_range(settings, "step", whole=False), *numbers(settings, ("size",), whole=True)]
    yield from found
    size = as_number(settings["size"])
    if found or size is None:
        return
    if not 2 <= size <= MOST_VALUES:
        yield "size", f"{show(size)} is too {'small' if size < 2 else 'large'}", f"from 2 to {MOST_VALUES}"
    elif settings.get("cast_int") and len(set(linear_values(settings))) < size:
        yield "size", f"{show(size)} whole numbers do not fit between low and high", "fewer values"


def _logfinrange(settings: Settings) -> Iterator[Found]:
    found = [*_finrange({**settings, "cast_int": False}), *_yes_or_no(settings, "cast_int")]
    found = found or list(_log(settings, 0))
    yield from found
    if not found and settings.get("cast_int") and len(set(log_values(settings))) < len(log_values(settings)):
        yield "size", f"{show(settings['size'])} whole numbers do not fit on this scale", "fewer values"


def _constant(settings: Settings) -> Iterator[Found]:
    yield from ()


def choices(settings: Settings) -> list[Any]:
    """The values as they are listed."""
    return list(settings["choices"])


def _evenly(low: float, high: float, size: int) -> list[float]:
    inner = [low + (high - low) * index / (size - 1) for index in range(1, size - 1)]
    return [low, *inner, high]


def linear_values(settings: Settings) -> list[Any]:
    """`size` values from low to high, both included."""
    low, high, size = (as_number(settings[key]) or 0 for key in ("low", "high", "size"))
    values = _evenly(float(low), float(high), int(size))
    return [round(value) for value in values] if settings.get("cast_int") else values


def log_values(settings: Settings) -> list[Any]:
    """`size` values from low to high, both included, with the same factor between neighbours."""
    low, high, size = (as_number(settings[key]) or 0 for key in ("low", "high", "size"))
    inner = [math.exp(value) for value in _evenly(math.log(low), math.log(high), int(size))[1:-1]]
    values = [float(low), *inner, float(high)]
    return [round(value) for value in values] if settings.get("cast_int") else values


def _value(settings: Settings) -> list[Any]:
    return [settings["value"]]


_RANGE = ("low", "high")
_SIZED = ("low", "high", "size")

DOMAINS: dict[str, Domain] = {
    "categorical": Domain(
        ("choices",), (), _categorical, "one of `choices`: strings, numbers, booleans, null or lists", choices
    ),
    "float": Domain(_RANGE, ("log", "step"), _float, "a number from `low` to `high`"),
    "int": Domain(_RANGE, ("log", "step"), _int, "a whole number from `low` to `high`", number=int),
    "loguniform": Domain(_RANGE, (), _loguniform, "a number from `low` to `high` on a logarithmic scale"),
    "uniform": Domain(_RANGE, (), _uniform, "a number from `low` to `high`"),
    "discrete_uniform": Domain((*_RANGE, "q"), (), _discrete, "a number from `low` to `high` in steps of `q`"),
    "log_int": Domain(_RANGE, (), _log_int, "a whole number from `low` to `high` on a logarithmic scale", number=int),
    "ordinal": Domain(("choices",), (), _ordinal, "one of `choices`, numbers in order: near ones are alike", choices),
    "log_ordinal": Domain(
        ("choices",), (), _log_ordinal, "one of `choices`, numbers in order, near ones on a logarithmic scale", choices
    ),
    "finrange": Domain(
        _SIZED, ("cast_int",), _finrange, "one of `size` numbers from `low` to `high`, evenly spaced", linear_values
    ),
    "logfinrange": Domain(
        _SIZED,
        ("cast_int",),
        _logfinrange,
        "one of `size` numbers from `low` to `high`, evenly on a log scale",
        log_values,
    ),
    "constant": Domain(("value",), (), _constant, "always `value`", _value),
    **GRID_DOMAINS,
}
