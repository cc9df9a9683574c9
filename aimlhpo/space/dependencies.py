"""Dependencies between parameters: a value times another's, and parameters that are searched only in some trials."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from enum import Enum
from typing import Any

from aimlhpo.errors import Problem, did_you_mean, key_path, listing, show
from aimlhpo.space.model_paths import exists, lookup

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
    """What one parameter has to do with another: `on` names it as the file does.

    Once resolved, `name` is the other's name in the study; or it is None, and `fixed` is the value that the model
    config has there. Where `on` names neither, both are left open.
    """

    type: str
    on: str
    conditions: tuple[Condition, ...] = ()
    otherwise: Any = NOTHING
    name: str | None = None
    fixed: Any = NOTHING

    @property
    def resolved(self) -> bool:
        """Whether `on` names a parameter or a value of the model config."""
        return self.name is not None or self.fixed is not NOTHING

    def holds(self, value: Any) -> bool:
        """Whether the parameter is searched where the other has this value."""
        return all(condition.holds(value) for condition in self.conditions)

    def value(self, values: Mapping[str, Any]) -> Any:
        """The other's value in a trial, NOTHING where it is left out."""
        return self.fixed if self.name is None else values.get(self.name, NOTHING)

    def resolve(self, names: Mapping[str, str], model: Mapping[str, Any]) -> Dependency:
        """The same with what `on` means; `names` maps the keys of parameters to their names in the study.

        Dots and colons are the same.
        """
        for spelled in (self.on, self.on.replace(".", ":"), self.on.replace(".", ":").removeprefix("model:")):
            if spelled in names:
                return replace(self, name=names[spelled])
            if spelled in names.values():
                return replace(self, name=spelled)
            if exists(model, spelled):
                return replace(self, fixed=lookup(model, spelled))
        return self


def read_dependencies(written: Any, where: str) -> tuple[tuple[Dependency, ...], list[Problem]]:
    """The dependencies of one parameter, and what is wrong with their form; `where` is their key path.

    They may be one, a list of several, or named by their kinds: `{multiply: {on: x}}`. One with a problem is left out.
    """
    if isinstance(written, Mapping) and written and set(written) <= set(KINDS):
        entries = [{"type": kind, **entry} if isinstance(entry, Mapping) else entry for kind, entry in written.items()]
    else:
        entries = [] if written is None else written if isinstance(written, list) else [written]
    dependencies: list[Dependency] = []
    problems: list[Problem] = []
    for entry in entries:
        found = list(_form_problems(entry, where))
        problems += found
        if not found:
            conditions = tuple(Condition(c["type"], c["compare_value"]) for c in entry.get("conditions", ()))
            dependencies.append(Dependency(entry["type"], entry["on"], conditions, entry.get("otherwise", NOTHING)))
    return tuple(dependencies), problems


def _form_problems(entry: Any, where: str) -> Iterator[Problem]:
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
    if kind != "optimize_iff":
        return
    conditions = entry.get("conditions")
    if not isinstance(conditions, list) or not conditions:
        legal = "a list of {type: ..., compare_value: ...}"
        yield Problem(key_path(where, "conditions"), f"{show(conditions)} is not a list", legal)
        return
    for index, condition in enumerate(conditions):
        here = key_path(where, "conditions", index)
        if not isinstance(condition, Mapping) or set(condition) != {"type", "compare_value"}:
            yield Problem(here, f"{show(condition)} is not a condition", "{type: ..., compare_value: ...}")
        elif not isinstance(condition["type"], str) or condition["type"] not in TESTS:
            near = did_you_mean(condition["type"], TESTS)
            yield Problem(key_path(here, "type"), f"{show(condition['type'])} is not known", listing(TESTS), near)
        elif condition["type"] == "in" and not isinstance(condition["compare_value"], list):
            value = show(condition["compare_value"])
            yield Problem(key_path(here, "compare_value"), f"{value} is not a list", "a list of values")
