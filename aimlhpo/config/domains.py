"""The kinds of search-space parameters: which settings each takes, and what is wrong with given ones."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from aimlhpo.config.values import as_number
from aimlhpo.errors import Problem
from aimlhpo.suggestions import did_you_mean, key_path, listing, show

Settings = Mapping[str, Any]
Found = tuple[str, str, str | None]  # the setting, what was found, what is legal


@dataclass(frozen=True)
class Domain:
    """One kind: its settings beside `name`, and a check of settings that are all there."""

    required: tuple[str, ...]
    optional: tuple[str, ...]
    check: Callable[[Settings], Iterator[Found]]
    meaning: str

    @property
    def settings(self) -> tuple[str, ...]:
        return ("name", *self.required, *self.optional)


def _numbers(settings: Settings, keys: tuple[str, ...], whole: bool) -> Iterator[Found]:
    kind = "a whole number" if whole else "a number"
    for key in keys:
        value = settings.get(key)
        number = as_number(value)
        if number is None and not (key in ("step", "q") and value is None):
            yield key, f"{show(value)} is not a number", kind
        elif whole and isinstance(number, float):
            yield key, f"{show(value)} is not a whole number", kind


def _range(settings: Settings, step: str, whole: bool) -> Iterator[Found]:
    """Low to high, with an optional step, on a linear or logarithmic scale."""
    found = list(_numbers(settings, ("low", "high", step), whole))
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


def _maybe_log(settings: Settings, smallest: float) -> Iterator[Found]:
    log = settings.get("log", False)
    if log not in (True, False):
        yield "log", f"{show(log)} is not yes or no", "true or false"
    elif log:
        yield from _log(settings, smallest)
        if as_number(settings.get("step")) not in (None, 1 if smallest else None):
            yield "step", "a logarithmic scale has no steps", "log or step, not both"


def _float(settings: Settings) -> Iterator[Found]:
    yield from _range(settings, "step", whole=False)
    yield from _maybe_log(settings, 0)


def _int(settings: Settings) -> Iterator[Found]:
    yield from _range(settings, "step", whole=True)
    yield from _maybe_log(settings, 1)


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
            same = "is given twice" if _alike(first, choice) else f"equals {show(first)}"
            yield "choices", f"{show(choice)} {same}", "each value once"


def _alike(one: Any, other: Any) -> bool:
    return type(one) is type(other)


DOMAINS: dict[str, Domain] = {
    "categorical": Domain(
        ("choices",), (), _categorical, "one of `choices`: strings, numbers, booleans, null or lists"
    ),
    "float": Domain(("low", "high"), ("log", "step"), _float, "a number from `low` to `high`"),
    "int": Domain(("low", "high"), ("log", "step"), _int, "a whole number from `low` to `high`"),
    "loguniform": Domain(("low", "high"), (), _loguniform, "a number from `low` to `high` on a logarithmic scale"),
    "uniform": Domain(("low", "high"), (), _uniform, "a number from `low` to `high`"),
    "discrete_uniform": Domain(("low", "high", "q"), (), _discrete, "a number from `low` to `high` in steps of `q`"),
}


def parameter_problems(above: tuple[str, ...], kind: Any, settings: Any) -> list[Problem]:
    """Every mistake in one parameter's `type` and `settings`; `above` is the key path of the parameter."""
    if kind is None or settings is None:
        return []
    if kind not in DOMAINS:
        where = key_path(*above, "type")
        return [Problem(where, f"{show(kind)} is not known", listing(DOMAINS), did_you_mean(kind, DOMAINS, 0.5))]
    if not isinstance(settings, Mapping):
        return []
    here = (*above, "settings")
    problems = list(_key_problems(here, DOMAINS[kind], settings)) + list(_name_problems(here, settings))
    if all(key in settings for key in DOMAINS[kind].required):
        found = DOMAINS[kind].check(settings)
        problems += [Problem(key_path(*here, key), what, legal) for key, what, legal in found]
    return problems


def _key_problems(here: tuple[str, ...], domain: Domain, settings: Settings) -> Iterator[Problem]:
    for key in settings:
        if key not in domain.settings:
            near = did_you_mean(key, domain.settings)
            yield Problem(key_path(*here, key), "unknown key", listing(domain.settings), near)
    for key in domain.required:
        if key not in settings:
            yield Problem(key_path(*here, key), "is missing", domain.meaning)


def _name_problems(here: tuple[str, ...], settings: Settings) -> Iterator[Problem]:
    name = settings.get("name", "x")
    if not isinstance(name, str) or not name.strip():
        yield Problem(key_path(*here, "name"), f"{show(name)} is not a name", "text: the parameter's name in the study")


def duplicate_names(above: tuple[str, ...], names: Mapping[str, str]) -> list[Problem]:
    """Parameters (key to name) that share a name."""
    first: dict[str, str] = {}
    problems = []
    for key, name in names.items():
        if name in first:
            found = f"the name {show(name)} is taken by {first[name]}"
            problems.append(Problem(key_path(*above, key, "settings", "name"), found, "a name of its own"))
        first.setdefault(name, key)
    return problems
