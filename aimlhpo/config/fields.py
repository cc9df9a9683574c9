"""The kinds of values that keys hold, each with its own words for what is wrong."""

from __future__ import annotations

import json
import re
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, WithJsonSchema
from pydantic_core import PydanticCustomError

from aimlhpo.errors import did_you_mean, listing, show
from aimlhpo.space.parameter_types import as_number

ALL, AUTO = "all", "auto"
_FEWEST = 20  # trials that a bounded sampler sees, at least
CONTROL = re.compile(r"[\x00-\x1f\x7f]")
NO_SECTION_NAME = re.compile(r"^$|^-|[\s:=]")
"""What would be taken for something else on the command line."""


class Section(BaseModel):
    """A mapping of the YAML file with a fixed set of keys."""

    model_config = ConfigDict(frozen=True, extra="forbid")


def illegal(found: str, legal: str, suggestion: str | None = None) -> PydanticCustomError:
    """The error that a validator raises; it becomes a Problem."""
    return PydanticCustomError("aimlhpo", "{found}", {"found": found, "legal": legal, "suggestion": suggestion})


def _whole(minimum: int, maximum: int | None = None) -> BeforeValidator:
    legal = f"a whole number, {minimum} or more" if maximum is None else f"a whole number from {minimum} to {maximum}"

    def check(value: Any) -> int:
        number = as_number(value)
        if not isinstance(number, int):
            raise illegal(f"{show(value)} is not a whole number", legal)
        if number < minimum or (maximum is not None and number > maximum):
            raise illegal(f"{show(value)} is too {'small' if number < minimum else 'large'}", legal)
        return number

    return BeforeValidator(check)


def real(legal: str, kind: str = "a number", *, zero: bool = False) -> BeforeValidator:
    """A validator for numbers above 0, and for 0 itself where `zero` says so; `kind` and `legal` are for messages."""

    def check(value: Any) -> float:
        number = as_number(value)
        if number is None:
            raise illegal(f"{show(value)} is not {kind}", legal)
        if number < 0 or (number == 0 and not zero):
            raise illegal(f"{show(value)} is too small", legal)
        return float(number)

    return BeforeValidator(check)


def _count_or(word: str, minimum: int) -> BeforeValidator:
    def check(value: Any) -> int | str:
        number = as_number(value)
        if value == word:
            return word
        if not isinstance(number, int) or number < minimum:
            raise illegal(f"{show(value)} is not a number of trials", f"a whole number, {minimum} or more, or {word}")
        return number

    return BeforeValidator(check)


def _flag(value: Any) -> bool:
    if isinstance(value, str) and value.lower() in ("true", "false", "yes", "no", "on", "off"):
        return value.lower() in ("true", "yes", "on")
    number = as_number(value) if not isinstance(value, bool) else int(value)
    if number not in (0, 1):
        raise illegal(f"{show(value)} is not yes or no", "true, false, 1 or 0")
    return bool(number)


def _flag_or_auto(value: Any) -> bool | str:
    try:
        return AUTO if value == AUTO else _flag(value)
    except PydanticCustomError:
        raise illegal(f"{show(value)} is not yes or no", "true, false or auto") from None


def _text(value: Any) -> str:
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        raise illegal(f"{show(value)} is not text", "text")
    text = str(value)
    if CONTROL.search(text):
        raise illegal("holds a line break or another control character", "text in one line")
    if not text.strip():
        raise illegal("is empty", "text")
    return text


def _section_name(value: Any) -> str:
    text = _text(value)
    if NO_SECTION_NAME.search(text):
        found = f"{show(text)} begins with a dash, or holds a blank, a colon or an equals sign"
        raise illegal(found, "a word, such as a100")
    return text


def as_list(value: Any) -> list[Any]:
    """A list as it is, and any other value as a list of one."""
    return value if isinstance(value, list) else [value]


def _words(value: Any) -> list[str]:
    if value == []:
        raise illegal("is an empty list", "at least one entry")
    return [_text(item) for item in as_list(value)]


def _shell_line(value: Any, legal: str) -> str:
    if not isinstance(value, str) or "\0" in value:
        raise illegal(f"{show(value)} is not a line of a shell script", legal)
    return value


def mapping(legal: str, shorthand: str | None = None, words: dict[bool | None, Any] | None = None) -> BeforeValidator:
    """A validator for a mapping.

    Args:
        legal: what the key takes, for messages.
        shorthand: the key of the mapping that a text alone stands for, where that is legal.
        words: what true, false and null stand for, where they are legal.
    """

    def check(value: Any) -> Any:
        if words and isinstance(value, bool | None) and value in words:
            return words[value]
        if shorthand is not None and isinstance(value, str):
            return {shorthand: value}
        if not isinstance(value, dict):
            raise illegal(f"{show(value)} is not a mapping", legal)
        return value

    return BeforeValidator(check)


def _command(value: Any) -> str:
    """A command line; YAML may fold it over several lines."""
    if not isinstance(value, str):
        raise illegal(f"{show(value)} is not text", 'a program and its arguments, as in "python train.py {parameters}"')
    return _text(" ".join(value.splitlines()).strip())


def _variables(value: Any) -> dict[str, str]:
    """Names and values of environment variables."""
    if not isinstance(value, dict):
        raise illegal(f"{show(value)} is not a mapping", "key: value pairs")
    for name, content in value.items():
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

Count = Annotated[int, _whole(1), in_editors({"type": "integer", "minimum": 1})]
CountFromZero = Annotated[int, _whole(0), in_editors({"type": "integer", "minimum": 0})]
CountOrAll = Annotated[
    int | str, _count_or(ALL, _FEWEST), in_editors({"type": "integer", "minimum": _FEWEST}, {"enum": [ALL]})
]
CountOrAuto = Annotated[int | str, _count_or(AUTO, 1), in_editors({"type": "integer", "minimum": 1}, {"enum": [AUTO]})]
Seed = Annotated[int, _whole(0, 2**32 - 1), in_editors({"type": "integer", "minimum": 0})]
Seconds = Annotated[
    float,
    real("seconds, more than 0", "a number of seconds"),
    in_editors({"type": "number", "exclusiveMinimum": 0}),
]
Flag = Annotated[bool, BeforeValidator(_flag), in_editors({"type": "boolean"}, {"enum": [0, 1]})]
FlagOrAuto = Annotated[
    bool | str, BeforeValidator(_flag_or_auto), in_editors({"type": "boolean"}, {"enum": [0, 1, AUTO]})
]
Text = Annotated[str, BeforeValidator(_text), in_editors(TEXT)]
SectionName = Annotated[str, BeforeValidator(_section_name), in_editors(TEXT)]
Weight = Annotated[float, real("a number above 0"), in_editors({"type": "number", "exclusiveMinimum": 0})]
Words = Annotated[list[str], BeforeValidator(_words), in_editors(TEXT, LIST_OF_TEXT)]
Lines = Annotated[
    list[str],
    BeforeValidator(lambda value: [_shell_line(item, "a list of lines") for item in as_list(value)]),
    in_editors(TEXT, LIST_OF_TEXT),
]
Script = Annotated[str, BeforeValidator(lambda value: _shell_line(value, "text")), in_editors(TEXT)]
Command = Annotated[str, BeforeValidator(_command), in_editors(TEXT)]
Variables = Annotated[
    dict[str, str],
    BeforeValidator(_variables),
    in_editors({"type": "object", "additionalProperties": {"type": ["string", "number", "boolean"]}}),
]
Mapping = Annotated[dict[str, Any], mapping("key: value pairs"), in_editors({"type": "object"})]
