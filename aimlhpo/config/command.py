"""Texts with placeholders: `{name}` stands for a value, `{{` and `}}` for the braces themselves. Pure.
From the command's words and a trial's values to the arguments of the program. Pure.

The words are split before any value is put in, so that no value can become a second argument or another command.
What a worker needs to know to run a program as the objective.
Options of a script for the parameters of a search space, so that they are written down in one place.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shlex
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from aimlhpo.objective.messages import CommandSpec

if TYPE_CHECKING:
    from aimlhpo.config.schema import Config

PARAMETERS = "parameters"  # all parameters, each in its own form
CONFIG = "config"  # a YAML file with the model configuration
CONFIG_JSON = "config.json"
TRIAL = "trial"  # the trial's number
CHECKPOINT_DIR = "checkpoint_dir"
PYTHON = "python"  # the Python that aimlhpo itself runs with
RESERVED = (PARAMETERS, CONFIG, CONFIG_JSON, TRIAL, CHECKPOINT_DIR, PYTHON)
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


def command_spec(config: Config) -> CommandSpec | None:
    """The configuration's command; None where the objective is a Python class."""
    options = config.optuna
    if options.command is None:
        return None
    return CommandSpec(
        words=tuple(split(options.command)),
        working_directory=options.working_directory or os.getcwd(),
        files=str(config.paths.state / "commands"),
        pass_as={p.name: p.pass_as for p in config.space.parameters if p.pass_as is not None},
        variables=dict(options.environment),
    )


_WHOLE = ("int", "log_int")
_REAL = ("float", "uniform", "loguniform")


def add_to_argparse(parser: argparse.ArgumentParser, space: str | os.PathLike[str] | Mapping[str, Any]) -> None:
    """Add an option for every parameter: `--NAME`, or the one that its `pass-as` begins with.

    `space` is the path of the hyperparameter YAML, or its `optuna: parameters` as a dict. The options convert their
    values and have no defaults: `parser.set_defaults(NAME=...)` sets them. Raises ConfigError for a file that cannot
    be read, ValueError for one that declares no parameters.
    """
    for key, entry in _entries(space).items():
        settings = entry.get("settings") or {}
        _add(parser, str(settings.get("name", key)), entry)


def _entries(space: str | os.PathLike[str] | Mapping[str, Any]) -> Mapping[str, Mapping[str, Any]]:
    if isinstance(space, Mapping):
        return space
    from aimlhpo.config.yaml import load_yaml

    file = load_yaml(Path(space))
    optuna = file.get("optuna") if isinstance(file, Mapping) else None
    parameters = optuna.get("parameters") if isinstance(optuna, Mapping) else None
    if not isinstance(parameters, Mapping):
        raise ValueError(f"{os.fspath(space)}: no `optuna: parameters` in it")
    return parameters


def _add(parser: argparse.ArgumentParser, name: str, entry: Mapping[str, Any]) -> None:
    pass_as, choices = entry.get("pass-as"), _choices(entry)
    option = _option(name, pass_as)
    if choices and all(isinstance(choice, bool) for choice in choices) and not _placed(pass_as):
        action = argparse.BooleanOptionalAction if pass_as is None else "store_true"
        parser.add_argument(option, dest=name, action=action)
    elif choices:
        texts = ", ".join(as_text(choice) for choice in choices).replace("%", "%%")
        parser.add_argument(option, dest=name, type=_one_of(choices), help=f"one of {texts}")
    else:
        parser.add_argument(option, dest=name, type=_type(entry), help=_range(entry.get("settings") or {}))


def _choices(entry: Mapping[str, Any]) -> list[Any]:
    """The values where they are listed and nothing multiplies them."""
    settings = entry.get("settings") or {}
    listed = settings.get("choices", settings.get("values", [settings["value"]] if "value" in settings else None))
    return listed if isinstance(listed, list) and "dependency" not in entry else []


def _type(entry: Mapping[str, Any]) -> Callable[[str], Any]:
    if entry.get("type") in _REAL and "dependency" not in entry:
        return float
    return int if entry.get("type") in _WHOLE and "dependency" not in entry else _number


def _number(text: str) -> int | float:
    try:
        return int(text)
    except ValueError:
        return float(text)


def _option(name: str, pass_as: str | None) -> str:
    try:
        words = split(pass_as) if pass_as else []
    except TemplateError:
        words = []
    first = words[0].partition("=")[0] if words else ""
    return first if first.startswith("-") and "{" not in first else f"--{name}"


def _placed(pass_as: str | None) -> bool:
    """Whether a value follows the option, also where it is a boolean."""
    return pass_as is not None and "{v}" in pass_as


def _range(settings: Mapping[str, Any]) -> str | None:
    ends = [settings.get(low, settings.get(other)) for low, other in (("low", "start"), ("high", "end"))]
    return None if None in ends else f"from {json.dumps(ends[0])} to {json.dumps(ends[1])}"


def _one_of(choices: Sequence[Any]) -> Callable[[str], Any]:
    by_text = {as_text(choice): choice for choice in choices}

    def choice(text: str) -> Any:
        if text not in by_text:
            raise argparse.ArgumentTypeError(f"{text!r} is not one of {', '.join(by_text)}")
        return by_text[text]

    return choice
