"""What a kind of search-space parameter is made of.
The kinds of parameters that make a study a full grid: every combination of their values is run once.
The kinds of search-space parameters: which settings each takes, and what is wrong with given ones.
The values of parameters that have finitely many, and drawing some of any.
"""

from __future__ import annotations

import math
import random
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from aimlhpo.errors import show


def as_number(value: Any) -> int | float | None:
    """The number that a value is or spells, or None; booleans are not numbers."""
    if isinstance(value, str):
        try:
            value = float(value) if not value.strip().lstrip("+-").isdecimal() else int(value)
        except ValueError:
            return None
    if isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) <= sys.float_info.max:
        return None
    return int(value) if isinstance(value, float) and value.is_integer() else value


Settings = Mapping[str, Any]
Found = tuple[str, str, str | None]  # the setting, what was found, what is legal
MOST_VALUES = 100_000


@dataclass(frozen=True)
class Domain:
    """One kind: its settings beside `name`, a check of settings that are all there, and what it means."""

    required: tuple[str, ...]
    optional: tuple[str, ...]
    check: Callable[[Settings], Iterator[Found]]
    meaning: str
    values: Callable[[Settings], list[Any]] | None = None
    """All values of a finite kind that is searched by position or by choice."""
    number: type = float

    @property
    def settings(self) -> tuple[str, ...]:
        return ("name", *self.required, *self.optional)


def numbers(settings: Settings, keys: tuple[str, ...], whole: bool) -> Iterator[Found]:
    kind = "a whole number" if whole else "a number"
    for key in keys:
        value = settings.get(key)
        number = as_number(value)
        if number is None and not (key in ("step", "q") and value is None):
            yield key, f"{show(value)} is not a number", kind
        elif whole and isinstance(number, float):
            yield key, f"{show(value)} is not a whole number", kind


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


def _domains_value(settings: Settings) -> list[Any]:
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
    "constant": Domain(("value",), (), _constant, "always `value`", _domains_value),
    **GRID_DOMAINS,
}


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
