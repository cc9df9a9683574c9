"""Whether a value from a YAML file is of the type that a signature names."""

from __future__ import annotations

from typing import Any

_TYPES: dict[str, tuple[type, ...]] = {
    "int": (int,), "float": (int, float), "bool": (bool,), "str": (str,), "None": (type(None),),
    "dict": (dict,), "Mapping": (dict,), "Sequence": (list,), "list": (list,), "np": (list,),
}  # fmt: skip


def fits(value: Any, annotation: str) -> bool:
    """Whether a YAML value is of a type that the annotation names; unknown types are left to the class."""
    names = outermost(annotation)
    if any(name not in _TYPES for name in names):
        return True
    if isinstance(value, bool):
        return "bool" in names
    return any(isinstance(value, kind) for name in names for kind in _TYPES[name])


def in_words(annotation: str) -> str:
    """The annotation for people: `a whole number or null`."""
    words = {"int": "a whole number", "float": "a number", "bool": "true or false", "str": "text", "None": "null"}
    words |= dict.fromkeys(("dict", "Mapping"), "a mapping") | dict.fromkeys(("Sequence", "list", "np"), "a list")
    return " or ".join(words.get(name, name) for name in outermost(annotation))


def outermost(annotation: str) -> list[str]:
    """The outermost type names of an annotation like `int | Sequence[float] | None`."""
    outer, depth = "", 0
    for char in annotation.removeprefix("<class '").removesuffix("'>").strip("'"):
        depth += (char == "[") - (char == "]")
        outer += char if depth == 0 and char != "]" else ""
    return [part.strip().split(".")[0] for part in outer.split("|")]


def without_list(value: Any, annotation: str) -> Any:
    """The first key of a mapping of lists, as the annotation names one, whose value is no list."""
    mapping_of_lists = outermost(annotation) == ["Mapping"] and "Sequence[" in annotation
    given = value if mapping_of_lists and isinstance(value, dict) else {}
    return next((key for key, item in given.items() if not isinstance(item, list)), None)
