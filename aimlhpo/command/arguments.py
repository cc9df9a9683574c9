"""From the command's words and a trial's values to the arguments of the program. Pure.

The words are split before any value is put in, so that no value can become a second argument or another command.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from aimlhpo.command.template import PARAMETERS, VALUE, fill, placeholders, split

ALL = "{" + PARAMETERS + "}"
_ABSENT = object()


def as_text(value: Any) -> str:
    """A value as one argument: texts as they are, everything else as JSON writes it (`true`, `null`, `[16, 32]`)."""
    return value if isinstance(value, str) else json.dumps(value, default=str)


def parameter_arguments(name: str, value: Any, pass_as: str | None = None) -> list[str]:
    """The arguments that hand one parameter over; none for null.

    By default `--name=value`, and for booleans `--name` or `--no-name`. A `pass_as` without {v} is a flag: it is
    there where the value is true.
    """
    if value is None:
        return []
    if pass_as is None:
        flag = {True: [f"--{name}"], False: [f"--no-{name}"]}
        return flag[value] if isinstance(value, bool) else [f"--{name}={as_text(value)}"]
    words = split(pass_as)
    if not any(VALUE in placeholders(word) for word in words):
        return [fill(word, str) for word in words] if value is True else []
    return [fill(word, lambda _: as_text(value)) for word in words]


def arguments(
    words: Sequence[str],
    parameters: Callable[[], Mapping[str, Any]],
    pass_as: Mapping[str, str],
    lookup: Callable[[str], Any],
) -> list[str]:
    """The program and its arguments.

    `parameters` gives the values by name, for {parameters}; `lookup` the value of any other placeholder. It raises
    KeyError where a parameter is inactive in this trial: the word is then left out, as it is for null.
    """
    made: list[str] = []
    for word in words:
        if word == ALL:
            for name, value in parameters().items():
                made += parameter_arguments(name, value, pass_as.get(name))
        else:
            made += _word(word, lookup)
    return made


def _word(word: str, lookup: Callable[[str], Any]) -> list[str]:
    values = {name: _value(name, lookup) for name in placeholders(word)}
    if any(value is _ABSENT or value is None for value in values.values()):
        return []
    return [fill(word, lambda name: as_text(values[name]))]


def _value(name: str, lookup: Callable[[str], Any]) -> Any:
    try:
        return lookup(name)
    except KeyError:
        return _ABSENT
