"""The kinds of values that keys hold, each with its own words for what is wrong."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, WithJsonSchema
from pydantic_core import PydanticCustomError

from aimlhpo.errors import did_you_mean, listing, show
from aimlhpo.space.parameter_types import as_number

ALL = "all"
CONTROL = re.compile(r"[\x00-\x1f\x7f]")


class Section(BaseModel):
    """A mapping of the YAML file with a fixed set of keys."""

    model_config = ConfigDict(frozen=True, extra="forbid")


def illegal(found: str, legal: str, suggestion: str | None = None) -> PydanticCustomError:
    """The error that a validator raises; it becomes a Problem."""
    return PydanticCustomError("aimlhpo", "{found}", {"found": found, "legal": legal, "suggestion": suggestion})


def _whole(minimum: int, maximum: int | None = None) -> Callable[[Any], Any]:
    legal = f"a whole number, {minimum} or more" if maximum is None else f"a whole number from {minimum} to {maximum}"

    def check(value: Any) -> Any:
        number = as_number(value)
        if not isinstance(number, int):
            raise illegal(f"{show(value)} is not a whole number", legal)
        if number < minimum or (maximum is not None and number > maximum):
            raise illegal(f"{show(value)} is too {'small' if number < minimum else 'large'}", legal)
        return number

    return check


def _count_or_all(value: Any) -> Any:
    least = 20
    number = as_number(value)
    if value != ALL and not (isinstance(number, int) and number >= least):
        raise illegal(f"{show(value)} is not a number of trials", f"a whole number, {least} or more, or {ALL}")
    return value if value == ALL else number


def _seconds(value: Any) -> float:
    number = as_number(value)
    legal = "seconds, more than 0"
    if number is None:
        raise illegal(f"{show(value)} is not a number of seconds", legal)
    if number <= 0:
        raise illegal(f"{show(value)} is too small", legal)
    return float(number)


def _flag(value: Any) -> bool:
    if isinstance(value, str) and value.lower() in ("true", "false", "yes", "no", "on", "off"):
        return value.lower() in ("true", "yes", "on")
    number = as_number(value) if not isinstance(value, bool) else int(value)
    if number not in (0, 1):
        raise illegal(f"{show(value)} is not yes or no", "true, false, 1 or 0")
    return bool(number)


def _text(value: Any) -> str:
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        raise illegal(f"{show(value)} is not text", "text")
    text = str(value)
    if CONTROL.search(text):
        raise illegal("holds a line break or another control character", "text in one line")
    if not text.strip():
        raise illegal("is empty", "text")
    return text


def _words(value: Any) -> list[str]:
    items = value if isinstance(value, list) else [value]
    if not items:
        raise illegal("is an empty list", "at least one entry")
    return [_text(item) for item in items]


def _lines(value: Any) -> list[str]:
    items = value if isinstance(value, list) else [value]
    for item in items:
        if not isinstance(item, str) or "\0" in item:
            raise illegal(f"{show(item)} is not a line of a shell script", "a list of lines")
    return list(items)


def _script(value: Any) -> str:
    if not isinstance(value, str) or "\0" in value:
        raise illegal(f"{show(value)} is not a line of a shell script", "text")
    return value


def _mapping(value: Any) -> Any:
    if not isinstance(value, dict):
        raise illegal(f"{show(value)} is not a mapping", "key: value pairs")
    return value


def _command(value: Any) -> str:
    """A command line; YAML may fold it over several lines."""
    if not isinstance(value, str):
        raise illegal(f"{show(value)} is not text", 'a program and its arguments, as in "python train.py {parameters}"')
    return _text(" ".join(value.splitlines()).strip())


def _variables(value: Any) -> dict[str, str]:
    """Names and values of environment variables."""
    for name, content in _mapping(value).items():
        if not isinstance(name, str) or not name or "=" in name or CONTROL.search(name):
            raise illegal(f"{show(name)} is not the name of a variable", "NAME: value pairs")
        if not isinstance(content, str | int | float) or "\0" in str(content):
            raise illegal(f"{name} is {show(content)}", "text or a number for each variable")
    return {name: content if isinstance(content, str) else json.dumps(content) for name, content in value.items()}


def one_of(*words: str) -> BeforeValidator:
    """A validator for a closed set of words."""

    def check(value: Any) -> str:
        if value not in words:
            raise illegal(f"{show(value)} is not known", listing(words), did_you_mean(value, words))
        return str(value)

    return BeforeValidator(check)


def in_editors(*kinds: dict[str, Any]) -> WithJsonSchema:
    """What editors are told that a key takes."""
    return WithJsonSchema(kinds[0] if len(kinds) == 1 else {"anyOf": list(kinds)})


LIST_OF_TEXT = {"type": "array", "items": {"type": "string"}, "minItems": 1}
TEXT = {"type": "string"}

Count = Annotated[int, BeforeValidator(_whole(1)), in_editors({"type": "integer", "minimum": 1})]
CountFromZero = Annotated[int, BeforeValidator(_whole(0)), in_editors({"type": "integer", "minimum": 0})]
CountOrAll = Annotated[
    int | str, BeforeValidator(_count_or_all), in_editors({"type": "integer", "minimum": 20}, {"enum": [ALL]})
]
Seed = Annotated[int, BeforeValidator(_whole(0, 2**32 - 1)), in_editors({"type": "integer", "minimum": 0})]
Seconds = Annotated[float, BeforeValidator(_seconds), in_editors({"type": "number", "exclusiveMinimum": 0})]
Flag = Annotated[bool, BeforeValidator(_flag), in_editors({"type": "boolean"}, {"enum": [0, 1]})]
Text = Annotated[str, BeforeValidator(_text), in_editors(TEXT)]
Words = Annotated[list[str], BeforeValidator(_words), in_editors(TEXT, LIST_OF_TEXT)]
Lines = Annotated[list[str], BeforeValidator(_lines), in_editors(TEXT, LIST_OF_TEXT)]
Script = Annotated[str, BeforeValidator(_script), in_editors(TEXT)]
Command = Annotated[str, BeforeValidator(_command), in_editors(TEXT)]
Variables = Annotated[
    dict[str, str],
    BeforeValidator(_variables),
    in_editors({"type": "object", "additionalProperties": {"type": ["string", "number", "boolean"]}}),
]
Mapping = Annotated[dict[str, Any], BeforeValidator(_mapping), in_editors({"type": "object"})]
