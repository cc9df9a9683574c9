"""Texts with placeholders: `{name}` stands for a value, `{{` and `}}` for the braces themselves. Pure."""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable, Iterator

PARAMETERS = "parameters"  # all parameters, each in its own form
CONFIG = "config"  # a YAML file with the model configuration
CONFIG_JSON = "config.json"
TRIAL = "trial"  # the trial's number
CHECKPOINT_DIR = "checkpoint_dir"
PYTHON = "python"  # the Python that aimlhpo itself runs with
RESERVED = (PARAMETERS, CONFIG, CONFIG_JSON, TRIAL, CHECKPOINT_DIR, PYTHON)
THIS_PYTHON = "{" + PYTHON + "}"
VALUE = "v"
_PART = re.compile(r"\{\{|\}\}|\{([^{}]*)\}|[{}]")


class TemplateError(ValueError):
    """A text that cannot be read as a template; the message says what was found."""


def split(command: str) -> list[str]:
    """The words of a command line, by the rules of a POSIX shell's quotes. Raises TemplateError."""
    try:
        return shlex.split(command)
    except ValueError as error:
        missing = "a quotation mark is not closed" if "quotation" in str(error) else "ends with a backslash"
        raise TemplateError(missing) from None


def placeholders(text: str) -> list[str]:
    """The names between braces, in order. Raises TemplateError for a brace without its partner."""
    return list(_names(text))


def _names(text: str) -> Iterator[str]:
    for match in _PART.finditer(text):
        if match[0] in ("{", "}"):
            raise TemplateError(f"a {match[0]} stands alone in {text!r}")
        if match[1] is not None:
            yield match[1]


def fill(text: str, value: Callable[[str], str]) -> str:
    """The text with a value for every placeholder. Raises what `value` raises."""
    return _PART.sub(lambda match: match[0][0] if match[1] is None else value(match[1]), text)
