"""Dependencies between parameters: a value times another's, and parameters that are searched only in some trials."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from enum import Enum
from graphlib import CycleError, TopologicalSorter
from typing import Any

from aimlhpo.errors import Problem, did_you_mean, key_path, listing, show
from aimlhpo.space.model_paths import exists, lookup, nearest

KINDS = {"multiply": ("on",), "optimize_iff": ("on", "conditions", "otherwise")}
TESTS: dict[str, Callable[[Any, Any], Any]] = {
    "equal": lambda value, other: value == other,
    "not_equal": lambda value, other: value != other,
    "in": lambda value, other: value in other,
    "less": lambda value, other: value < other,
    "greater": lambda value, other: value > other,
    "less_or_equal": lambda value, other: value <= other,
    "greater_or_equal": lambda value, other: value >= other,
}


class Absent(Enum):
    """Says that a parameter is left out: None is a value like others."""

    NOTHING = "nothing"


NOTHING = Absent.NOTHING


@dataclass(frozen=True)
class Condition:
    """One comparison with the other parameter's value."""

    type: str
    compare_value: Any

    def holds(self, value: Any) -> bool:
        """Whether it holds; values that cannot be compared do not."""
        try:
            return bool(TESTS[self.type](value, self.compare_value))
        except TypeError:
            return False


@dataclass(frozen=True)
class Dependency:
    """What one parameter has to do with another: `on` names it."""

    type: str
    on: str
    conditions: tuple[Condition, ...] = ()
    otherwise: Any = NOTHING

    def holds(self, value: Any) -> bool:
        """Whether the parameter is searched where the other has this value."""
        return all(condition.holds(value) for condition in self.conditions)


def listed(raw: Any) -> list[Any]:
    """The dependencies of one parameter as they stand in the file, each with its `type`.

    They may be one, a list of several, or named by their kinds: `{multiply: {on: x}}`.
    """
    if raw is None:
        return []
    if isinstance(raw, Mapping) and raw and set(raw) <= set(KINDS):
        return [{"type": kind, **entry} if isinstance(entry, Mapping) else entry for kind, entry in raw.items()]
    return raw if isinstance(raw, list) else [raw]


def parse(raw: Any) -> tuple[Dependency, ...]:
    """The dependencies of one parameter. They must be checked."""
    return tuple(
        Dependency(
            entry["type"],
            entry["on"],
            tuple(Condition(c["type"], c["compare_value"]) for c in entry.get("conditions", ())),
            entry.get("otherwise", NOTHING),
        )
        for entry in listed(raw)
    )


def resolve(on: str, names: Mapping[str, str], model: Mapping[str, Any]) -> tuple[str | None, Any]:
    """What `on` means: the key of a parameter, or None and a fixed value of the model config.

    `names` maps keys to study names. Dots and colons are the same. Raises LookupError where there is neither.
    """
    by_name = {name: key for key, name in names.items()}
    for spelled in (on, on.replace(".", ":"), on.replace(".", ":").removeprefix("model:")):
        if spelled in names:
            return spelled, None
        if spelled in by_name:
            return by_name[spelled], None
        if exists(model, spelled):
            return None, lookup(model, spelled)
    raise LookupError(on)


def dependency_order(needs: Mapping[str, Iterable[str]]) -> list[str]:
    """The keys so that each comes after those it needs. Raises graphlib.CycleError."""
    return list(TopologicalSorter(needs).static_order())


def dependency_problems(
    entries: Mapping[str, Any], names: Mapping[str, str], model: Mapping[str, Any], where: Mapping[str, str]
) -> list[Problem]:
    """What is wrong with the dependencies (key of a parameter to its raw `dependency`); `where` has their key paths."""
    problems: list[Problem] = []
    needs: dict[str, list[str]] = {}
    for key, raw in entries.items():
        needs[key] = []
        for entry in listed(raw):
            found = list(_entry_problems(entry, where[key]))
            problems += found
            if not found:
                needs[key] += _needed(entry["on"], names, model, where[key], problems)
    return problems + _circle(needs)


def _entry_problems(entry: Any, where: str) -> Iterator[Problem]:
    kind = entry.get("type") if isinstance(entry, Mapping) else None
    if not isinstance(entry, Mapping) or not isinstance(kind, str) or kind not in KINDS:
        found = f"{show(kind if isinstance(entry, Mapping) else entry)} is not a kind of dependency"
        yield Problem(key_path(where, "type"), found, listing(KINDS), did_you_mean(kind, KINDS))
        return
    for key in entry:
        if key not in ("type", *KINDS[kind]):
            near = did_you_mean(key, KINDS[kind])
            yield Problem(key_path(where, key), "unknown key", listing(("type", *KINDS[kind])), near)
    if not isinstance(entry.get("on"), str):
        yield Problem(key_path(where, "on"), f"{show(entry.get('on'))} is not a path", "a parameter or a model path")
    if kind == "optimize_iff":
        yield from _conditions_problems(entry.get("conditions"), key_path(where, "conditions"))


def _conditions_problems(conditions: Any, where: str) -> Iterator[Problem]:
    if not isinstance(conditions, list) or not conditions:
        yield Problem(where, f"{show(conditions)} is not a list", "a list of {type: ..., compare_value: ...}")
        return
    for index, condition in enumerate(conditions):
        here = key_path(where, index)
        if not isinstance(condition, Mapping) or set(condition) != {"type", "compare_value"}:
            yield Problem(here, f"{show(condition)} is not a condition", "{type: ..., compare_value: ...}")
        elif not isinstance(condition["type"], str) or condition["type"] not in TESTS:
            near = did_you_mean(condition["type"], TESTS)
            yield Problem(key_path(here, "type"), f"{show(condition['type'])} is not known", listing(TESTS), near)
        elif condition["type"] == "in" and not isinstance(condition["compare_value"], list):
            value = show(condition["compare_value"])
            yield Problem(key_path(here, "compare_value"), f"{value} is not a list", "a list of values")


def _needed(
    on: str, names: Mapping[str, str], model: Mapping[str, Any], where: str, problems: list[Problem]
) -> list[str]:
    """The key of the parameter that `on` names, where it names one."""
    try:
        key, _ = resolve(on, names, model)
    except LookupError:
        near = did_you_mean(on, (*names, *names.values())) or nearest(model, on.replace(".", ":"))
        found = f"{show(on)} is neither a parameter nor in the model YAML"
        problems.append(Problem(key_path(where, "on"), found, "a parameter's key or name, or a model path", near))
        return []
    return [] if key is None else [key]


def _circle(needs: Mapping[str, Iterable[str]]) -> list[Problem]:
    try:
        dependency_order(needs)
    except CycleError as error:
        circle = " -> ".join(reversed(error.args[1]))
        return [Problem(key_path("optuna", "parameters"), f"depend on each other in a circle: {circle}", "no circle")]
    return []
