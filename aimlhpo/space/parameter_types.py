"""The types of search-space parameters: the settings that each takes, what is wrong with given ones, its values, and
how they are stored.

A new type is a subclass of ParameterType (or another instance of one that is here) and one line in PARAMETER_TYPES.
Checks, the JSON schema and the reference tables all read that registry. Pure: nothing here imports optuna.
"""

from __future__ import annotations

import math
import random
import sys
from collections.abc import Iterator, Mapping
from decimal import Decimal
from typing import Any

from aimlhpo.errors import Problem, did_you_mean, key_path, listing, show
from aimlhpo.space.distributions import (
    Codec,
    Encoding,
    NumberRange,
    WholeNumbers,
    by_choice,
    by_log_position,
    by_position,
)

Settings = Mapping[str, Any]
MOST_VALUES = 100_000

SETTINGS: dict[str, dict[str, Any]] = {
    "name": {"type": "string", "description": "The parameter's name in the study; its key where not given."},
    "low": {"type": "number", "description": "Smallest value, included."},
    "high": {"type": "number", "description": "Largest value, included."},
    "log": {"type": "boolean", "description": "Search on a logarithmic scale.", "default": False},
    "step": {"type": "number", "description": "Distance between neighbouring values.", "exclusiveMinimum": 0},
    "q": {"type": "number", "description": "Distance between neighbouring values.", "exclusiveMinimum": 0},
    "choices": {"type": "array", "description": "The values to choose from.", "minItems": 1},
    "size": {"type": "integer", "description": "Number of values, both ends included.", "minimum": 2},
    "cast_int": {"type": "boolean", "description": "Round the values to whole numbers.", "default": False},
    "value": {"description": "The value of every trial."},
    "values": {"type": "array", "description": "The values, each of which is run.", "minItems": 1},
    "start": {"type": "number", "description": "First number, or first exponent."},
    "end": {"type": "number", "description": "Last number, or last exponent, included."},
    "base": {"type": "number", "description": "What the exponents are powers of.", "default": 10},
    "count": {"type": "integer", "description": "Number of values.", "minimum": 1},
    "distribution": {"type": "object", "description": "What values are drawn from: type and settings."},
}
"""JSON schema of every setting that a type may name."""


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


def is_number(value: Any) -> bool:
    """Whether a value is a number, and not a text that spells one."""
    return not isinstance(value, str) and as_number(value) is not None


class ParameterType:
    """One type of parameter.

    Every method but `problems` takes settings in which `problems` has found nothing.
    """

    meaning: str
    required: tuple[str, ...]
    optional: tuple[str, ...] = ()
    ordered = True
    """Whether listed values are in an order, so that the sampler may know which are neighbours."""
    of_grid = False
    """Whether the type makes a study a full grid, in which every combination of values is run once."""

    @property
    def settings(self) -> tuple[str, ...]:
        """The names of all settings."""
        return ("name", *self.required, *self.optional)

    def problems(self, settings: Settings) -> Iterator[Problem]:
        """What is wrong with settings that are all there; `where` begins with the setting's name."""
        yield from ()

    def listed(self, settings: Settings) -> list[Any] | None:
        """All values of a type that lists them, None for ranges of numbers."""
        return None

    def values(self, settings: Settings) -> list[Any] | None:
        """All values in order, None where there are infinitely many or too many to list."""
        return self.listed(settings)

    def size(self, settings: Settings) -> int:
        """How many values take part in a grid; 0 where there are infinitely many."""
        return len(self.values(settings) or [])

    def legal(self, settings: Settings, value: Any) -> str | None:
        """None for one of the parameter's values; for any other value, which ones there are."""
        values = self.listed(settings) or []
        found = any(value == one and isinstance(value, bool) == isinstance(one, bool) for one in values)
        return None if found else f"one of {show(values)}"

    def draw(self, settings: Settings, count: int, seed: str) -> list[Any]:
        """`count` values at random, all different; the same ones for the same seed."""
        source = random.Random(seed)
        return sorted(self.values(settings) or [], key=lambda _: source.random(), reverse=True)[:count]

    def encoding(self, settings: Settings) -> Encoding:
        """How the values are stored, and the way from and to the user's values."""
        values = self.listed(settings) or []
        return by_position(values) if self.ordered else by_choice(values)


class Range(ParameterType):
    """The numbers from `low` to `high`.

    `log` is True for a logarithmic scale, None where the setting of that name decides; `step` is the setting that
    holds the distance between neighbours.
    """

    def __init__(self, meaning: str, *, whole: bool = False, log: bool | None = False, step: str = "step") -> None:
        self.meaning = f"a {'whole ' if whole else ''}number from `low` to `high`{meaning}"
        self.whole, self._log, self._step = whole, log, step
        self.required = ("low", "high") if step == "step" else ("low", "high", step)
        self.optional = ("log", "step") if log is None else ()

    def problems(self, settings: Settings) -> Iterator[Problem]:
        yield from _range_problems(settings, self._step, self.whole)
        log = self._log
        if log is None:
            yield from _yes_or_no_problems(settings, "log")
            log = settings.get("log", False) in (1, True)
            if log and as_number(settings.get("step")) not in (None, 1 if self.whole else None):
                yield Problem("step", "a logarithmic scale has no steps", "log or step, not both")
        if log:
            yield from _log_problems(settings, smallest=1 if self.whole else 0)

    def _numbers(self, settings: Settings) -> tuple[int | float, int | float, int | float | None, bool]:
        low, high = as_number(settings["low"]) or 0, as_number(settings["high"]) or 0
        log = bool(settings.get("log", False)) if self._log is None else self._log
        return low, high, as_number(settings.get(self._step)), log

    def values(self, settings: Settings) -> list[Any] | None:
        low, high, step, _ = self._numbers(settings)
        step = step or (1 if self.whole else None)
        if step is None or (high - low) / step >= MOST_VALUES:
            return None
        return [int(value) if self.whole else float(value) for value in stepped_values(low, high, step)]

    def legal(self, settings: Settings, value: Any) -> str | None:
        low, high, step, _ = self._numbers(settings)
        number = None if isinstance(value, str) else as_number(value)
        if number is None or not low <= number <= high or (self.whole and isinstance(number, float)):
            return f"a {'whole ' if self.whole else ''}number from {show(low)} to {show(high)}"
        if step and abs((number - low) / step - round((number - low) / step)) > 1e-8:
            return f"a number from {show(low)} to {show(high)} in steps of {show(step)}"
        return None

    def draw(self, settings: Settings, count: int, seed: str) -> list[Any]:
        source = random.Random(seed)
        low, high, _, log = self._numbers(settings)
        values = self.values(settings)
        if values is not None:  # without replacement; on a logarithmic scale, small ones are likelier
            keyed = sorted(values, key=lambda value: source.random() ** (value if log else 1), reverse=True)
            return keyed[:count]
        drawn: dict[Any, None] = {}
        while len(drawn) < count:
            number = math.exp(source.uniform(math.log(low), math.log(high))) if log else source.uniform(low, high)
            number = min(max(number, low), high)
            drawn[round(number) if self.whole else float(number)] = None
        return list(drawn)

    def encoding(self, settings: Settings) -> Encoding:
        low, high, step, log = self._numbers(settings)
        if self.whole:
            return WholeNumbers(int(low), int(high), int(step or 1), log), Codec()
        return NumberRange(float(low), float(high), None if step is None else float(step), log), Codec()


class Listed(ParameterType):
    """The values of a list, which have no order; `key` is the setting that holds it."""

    ordered = False

    def __init__(self, meaning: str, key: str = "choices", *, of_grid: bool = False) -> None:
        self.meaning, self.of_grid = meaning, of_grid
        self._key, self.required = key, (key,)

    def problems(self, settings: Settings) -> Iterator[Problem]:
        key, choices = self._key, settings[self._key]
        if not isinstance(choices, list):
            yield Problem(key, f"{show(choices)} is not a list", "a list of values")
            return
        if not choices:
            yield Problem(key, "is an empty list", "at least one value")
        for index, choice in enumerate(choices):
            if isinstance(choice, float) and math.isnan(choice):
                yield Problem(key, "nan is not a value", "strings, numbers, booleans, null or lists")
            elif choice in choices[:index]:
                first = choices[choices.index(choice)]
                same = "is given twice" if type(first) is type(choice) else f"equals {show(first)}"
                yield Problem(key, f"{show(choice)} {same}", "each value once")

    def listed(self, settings: Settings) -> list[Any]:
        return list(settings[self._key])


class Ordinal(Listed):
    """Numbers in order: near ones are alike."""

    ordered = True

    def problems(self, settings: Settings) -> Iterator[Problem]:
        found = list(super().problems(settings))
        yield from found
        if found:
            return
        choices = settings["choices"]
        words = [choice for choice in choices if not is_number(choice)]
        if words:
            yield Problem("choices", f"{show(words[0])} is not a number", "numbers in order, or the type categorical")
        elif choices != sorted(choices):
            yield Problem("choices", f"{show(choices)} is not in order", "numbers in rising order")


class LogOrdinal(Ordinal):
    """Numbers in order on a logarithmic scale."""

    def problems(self, settings: Settings) -> Iterator[Problem]:
        found = list(super().problems(settings))
        yield from found
        if not found and settings["choices"][0] <= 0:
            shown = show(settings["choices"][0])
            yield Problem("choices", f"{shown} has no place on a logarithmic scale", "numbers more than 0")

    def encoding(self, settings: Settings) -> Encoding:
        return by_log_position([as_number(value) or 0 for value in self.listed(settings)])


class EvenlySpaced(ParameterType):
    """`size` numbers from `low` to `high`, both included."""

    required = ("low", "high", "size")
    optional = ("cast_int",)

    def __init__(self, *, log: bool) -> None:
        self._log = log
        how = "evenly on a log scale" if log else "evenly spaced"
        self.meaning = f"one of `size` numbers from `low` to `high`, {how}"

    def problems(self, settings: Settings) -> Iterator[Problem]:
        found = [
            *_yes_or_no_problems(settings, "cast_int"),
            *_range_problems(settings, "step", whole=False),
            *_number_problems(settings, ("size",), whole=True),
        ]
        size = as_number(settings["size"])
        if not found and size is not None and not 2 <= size <= MOST_VALUES:
            what = f"{show(size)} is too {'small' if size < 2 else 'large'}"
            found.append(Problem("size", what, f"from 2 to {MOST_VALUES}"))
        if not found and self._log:
            found += _log_problems(settings, smallest=0)
        if not found and settings.get("cast_int") and len(set(self.listed(settings))) < int(size or 0):
            where = "on this scale" if self._log else "between low and high"
            found.append(Problem("size", f"{show(size)} whole numbers do not fit {where}", "fewer values"))
        yield from found

    def listed(self, settings: Settings) -> list[Any]:
        low, high, size = (as_number(settings[key]) or 0 for key in ("low", "high", "size"))
        first, last = (math.log(low), math.log(high)) if self._log else (float(low), float(high))
        inner = [first + (last - first) * index / (int(size) - 1) for index in range(1, int(size) - 1)]
        values = [float(low), *(map(math.exp, inner) if self._log else inner), float(high)]
        return [round(value) for value in values] if settings.get("cast_int") else values


class Constant(ParameterType):
    """One value; as `single`, a grid's type."""

    required = ("value",)
    ordered = False

    def __init__(self, meaning: str, *, of_grid: bool = False) -> None:
        self.meaning, self.of_grid = meaning, of_grid

    def listed(self, settings: Settings) -> list[Any]:
        return [settings["value"]]


class Linear(ParameterType):
    """A grid's numbers in equal steps."""

    meaning = "grid: numbers from `start` to `end` in steps of `step`"
    required = ("start", "end", "step")
    of_grid = True

    def problems(self, settings: Settings) -> Iterator[Problem]:
        found = list(_number_problems(settings, ("start", "end"), whole=False))
        step = as_number(settings["step"])
        if step is None or step <= 0:
            found.append(Problem("step", f"{show(settings['step'])} is not a positive number", "more than 0"))
        yield from found
        if found or step is None:
            return
        start, end = as_number(settings["start"]) or 0, as_number(settings["end"]) or 0
        if start > end:
            yield Problem("start", f"{show(start)} is greater than end, {show(end)}", "start <= end")
        elif (end - start) / step >= MOST_VALUES:
            yield Problem("step", f"{show(step)} makes more than {MOST_VALUES} values", "a wider step")

    def listed(self, settings: Settings) -> list[Any]:
        return stepped_values(settings["start"], settings["end"], settings["step"])


class Powers(ParameterType):
    """A grid's powers of a base."""

    meaning = "grid: `base` (10 where not given) to the power of `count` exponents from `start` to `end`"
    required = ("start", "end", "count")
    optional = ("base",)
    of_grid = True

    def problems(self, settings: Settings) -> Iterator[Problem]:
        found = [*_number_problems(settings, ("start", "end"), whole=False), *_count_problems(settings)]
        base = as_number(settings.get("base", 10))
        if base is None or base <= 0 or base == 1:
            what = f"{show(settings['base'])} is not a base of powers"
            found.append(Problem("base", what, "a number more than 0, not 1"))
        yield from found
        if found:
            return
        try:
            values = self.listed(settings)
        except OverflowError:
            what = f"{show(base)} to the power of {show(settings['end'])} is no number any more"
            yield Problem("end", what, "smaller exponents")
            return
        if len(set(values)) < len(values):
            what = f"{show(settings['count'])} different values do not fit from start to end"
            yield Problem("count", what, "count: 1")

    def listed(self, settings: Settings) -> list[Any]:
        """Whole numbers stay whole."""
        base, start, end = (as_number(settings.get(key, 10)) or 0 for key in ("base", "start", "end"))
        count = int(as_number(settings["count"]) or 0)
        exponents = [start + (end - start) * index / max(1, count - 1) for index in range(count)]
        whole = isinstance(base, int) and all(exponent >= 0 and exponent == int(exponent) for exponent in exponents)
        return [base ** int(exponent) if whole else float(base) ** exponent for exponent in exponents]


class Random(ParameterType):
    """A grid's values that are drawn once, from a parameter without a name of its own."""

    meaning = "grid: `count` values drawn once from `distribution` ({type: ..., settings: ...})"
    required = ("distribution", "count")
    of_grid = True

    def problems(self, settings: Settings) -> Iterator[Problem]:
        found = list(_count_problems(settings))
        yield from found
        drawn = settings["distribution"]
        if found:
            return
        complete = isinstance(drawn, Mapping) and set(drawn) == {"type", "settings"}
        if not complete or not isinstance(drawn["settings"], dict):
            yield Problem("distribution", f"{show(drawn)} is not a distribution", "{type: ..., settings: {...}}")
            return
        kind = PARAMETER_TYPES.get(str(drawn["type"]))
        if kind is not None and kind.of_grid:
            others = listing(name for name, other in PARAMETER_TYPES.items() if not other.of_grid)
            yield Problem(key_path("distribution", "type"), f"{show(drawn['type'])} is a grid's own type", others)
            return
        inner = list(settings_problems(("distribution",), drawn["type"], drawn["settings"]))
        yield from inner
        values = None if inner or kind is None else kind.values(drawn["settings"])
        if values is not None and len(values) < (as_number(settings["count"]) or 0):
            yield Problem("count", f"{show(settings['count'])} of {len(values)} values", "no more than there are")

    def values(self, settings: Settings) -> None:
        return None

    def size(self, settings: Settings) -> int:
        return int(as_number(settings["count"]) or 0)

    def legal(self, settings: Settings, value: Any) -> str | None:
        drawn = settings["distribution"]
        return PARAMETER_TYPES[drawn["type"]].legal(drawn["settings"], value)

    def draw(self, settings: Settings, count: int, seed: str) -> list[Any]:
        drawn = settings["distribution"]
        return PARAMETER_TYPES[drawn["type"]].draw(drawn["settings"], count, seed)

    def encoding(self, settings: Settings) -> Encoding:
        drawn = settings["distribution"]
        return PARAMETER_TYPES[drawn["type"]].encoding(drawn["settings"])


_ON_LOG = " on a logarithmic scale"

PARAMETER_TYPES: dict[str, ParameterType] = {
    "categorical": Listed("one of `choices`: strings, numbers, booleans, null or lists"),
    "float": Range("", log=None),
    "int": Range("", log=None, whole=True),
    "loguniform": Range(_ON_LOG, log=True),
    "uniform": Range(""),
    "discrete_uniform": Range(" in steps of `q`", step="q"),
    "log_int": Range(_ON_LOG, log=True, whole=True),
    "ordinal": Ordinal("one of `choices`, numbers in order: near ones are alike"),
    "log_ordinal": LogOrdinal("one of `choices`, numbers in order, near ones on a logarithmic scale"),
    "finrange": EvenlySpaced(log=False),
    "logfinrange": EvenlySpaced(log=True),
    "constant": Constant("always `value`"),
    "single": Constant("grid: `value` alone", of_grid=True),
    "multiple": Listed("grid: each of `values`", "values", of_grid=True),
    "linear": Linear(),
    "logspace": Powers(),
    "random": Random(),
}


def settings_problems(
    above: tuple[str, ...], kind: Any, settings: Settings, words: tuple[str, str] = ("type", "settings")
) -> Iterator[Problem]:
    """Every mistake in one parameter's type and settings; `above` is its key path, `words` what the two are called."""
    if not isinstance(kind, str) or kind not in PARAMETER_TYPES:
        near = did_you_mean(kind, PARAMETER_TYPES, 0.5)
        yield Problem(key_path(*above, words[0]), f"{show(kind)} is not known", listing(PARAMETER_TYPES), near)
        return
    parameter_type, here = PARAMETER_TYPES[kind], (*above, words[1])
    for key in settings:
        if key not in parameter_type.settings:
            near = did_you_mean(key, parameter_type.settings)
            yield Problem(key_path(*here, key), "unknown key", listing(parameter_type.settings), near)
    missing = [key for key in parameter_type.required if key not in settings]
    for key in missing:
        yield Problem(key_path(*here, key), "is missing", parameter_type.meaning)
    name = settings.get("name", "x")
    if not isinstance(name, str) or not name.strip():
        yield Problem(key_path(*here, "name"), f"{show(name)} is not a name", "text: the parameter's name in the study")
    for problem in () if missing else parameter_type.problems(settings):
        yield Problem(key_path(*here, problem.where), problem.found, problem.legal, problem.suggestion)


def stepped_values(start: Any, end: Any, step: Any) -> list[Any]:
    """From start in steps up to end, which is included where a step meets it; 0.1 + 0.2 is 0.3 here."""
    first, last, width = (Decimal(str(as_number(number))) for number in (start, end, step))
    values = [first + width * index for index in range(int((last - first) / width) + 1)]
    whole = all(value == value.to_integral_value() for value in (first, width))
    return [int(value) if whole else float(value) for value in values]


def _number_problems(settings: Settings, keys: tuple[str, ...], whole: bool) -> Iterator[Problem]:
    kind = "a whole number" if whole else "a number"
    for key in keys:
        value = settings.get(key)
        number = as_number(value)
        if number is None and not (key in ("step", "q") and value is None):
            yield Problem(key, f"{show(value)} is not a number", kind)
        elif whole and isinstance(number, float):
            yield Problem(key, f"{show(value)} is not a whole number", kind)


def _range_problems(settings: Settings, step: str, whole: bool) -> Iterator[Problem]:
    """Low to high, with an optional step, on a linear or logarithmic scale."""
    found = list(_number_problems(settings, ("low", "high", step), whole))
    yield from found
    if found:
        return
    low, high = as_number(settings["low"]) or 0, as_number(settings["high"]) or 0
    if low > high:
        yield Problem("low", f"{show(low)} is greater than high, {show(high)}", "low <= high")
    width = as_number(settings.get(step))
    if width is not None and width <= 0:
        yield Problem(step, f"{show(width)} is not positive", "more than 0")
    if width is None and step == "q":
        yield Problem(step, "null is not a number", "more than 0")


def _log_problems(settings: Settings, smallest: int) -> Iterator[Problem]:
    """What a logarithmic scale asks for beyond a range."""
    low = as_number(settings["low"])
    if low is not None and (low < smallest or low <= 0):
        legal = "low > 0" if smallest == 0 else f"low >= {smallest}"
        yield Problem("low", f"{show(low)} has no place on a logarithmic scale", legal)


def _yes_or_no_problems(settings: Settings, key: str) -> Iterator[Problem]:
    if settings.get(key, False) not in (True, False):
        yield Problem(key, f"{show(settings[key])} is not yes or no", "true or false")


def _count_problems(settings: Settings) -> Iterator[Problem]:
    count = as_number(settings["count"])
    if not isinstance(count, int) or not 1 <= count <= MOST_VALUES:
        yield Problem("count", f"{show(settings['count'])} is not a count", f"a whole number from 1 to {MOST_VALUES}")
