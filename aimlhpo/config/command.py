"""A program as the objective: from the words of `command` and a trial's values to the arguments of the program.

A word may hold placeholders: `{name}` stands for a value, `{{` and `}}` for the braces themselves. The words are split
before any value is put in, so that no value can become a second argument or another command. `command_spec` gathers
what a worker needs to run the program. `add_to_argparse` is for the program itself: it gives a script one option for
each parameter of the search space, so that they are written down in one place.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shlex
from collections.abc import Callable, Mapping, Sequence
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
NNODES, NODE_RANK, MASTER_ADDR, MASTER_PORT = "nnodes", "node_rank", "master_addr", "master_port"
OF_NODES = (NNODES, NODE_RANK, MASTER_ADDR, MASTER_PORT)
"""For a program that starts a node's processes itself, as torchrun does: with one of these, it is started once on each
of a trial's nodes, else once for each of the trial's processes."""
RESERVED = (PARAMETERS, CONFIG, CONFIG_JSON, TRIAL, CHECKPOINT_DIR, PYTHON, *OF_NODES)
ALL = "{" + PARAMETERS + "}"
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
    names = []
    for match in _PART.finditer(text):
        if match[0] in ("{", "}"):
            raise TemplateError(f"a {match[0]} stands alone in {text!r}")
        if match[1] is not None:
            names.append(match[1])
    return names


def fill(text: str, value: Callable[[str], str]) -> str:
    """The text with a value for every placeholder. Raises what `value` raises."""
    return _PART.sub(lambda match: match[0][0] if match[1] is None else value(match[1]), text)


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
            continue
        try:
            values = {name: lookup(name) for name in placeholders(word)}
        except KeyError:
            continue
        if not any(value is None for value in values.values()):
            texts = {name: as_text(value) for name, value in values.items()}
            made.append(fill(word, texts.__getitem__))
    return made


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


def add_to_argparse(parser: argparse.ArgumentParser, space: str | os.PathLike[str] | Mapping[str, Any]) -> None:
    """Add an option for every parameter: `--NAME`, or the one that its `pass-as` begins with.

    The options convert their values and have no defaults: `parser.set_defaults(NAME=...)` sets them.

    Args:
        parser: the script's own; each value becomes the attribute NAME of what it parses.
        space: the path of the hyperparameter YAML, or its `optuna: parameters` as a dict.

    Raises ConfigError for a file that cannot be read, ValueError for one that declares no parameters.
    """
    if not isinstance(space, Mapping):
        from aimlhpo.config.yaml import load_yaml  # a script that is given a mapping needs no YAML

        file = load_yaml(Path(space))
        optuna = file.get("optuna") if isinstance(file, Mapping) else None
        parameters = optuna.get("parameters") if isinstance(optuna, Mapping) else None
        if not isinstance(parameters, Mapping):
            raise ValueError(f"{os.fspath(space)}: no `optuna: parameters` in it")
        space = parameters
    for key, entry in space.items():
        settings, pass_as, alone = entry.get("settings") or {}, entry.get("pass-as"), "dependency" not in entry
        name = str(settings.get("name", key))
        option = _option(name, pass_as)
        listed = settings.get("choices", settings.get("values", [settings["value"]] if "value" in settings else None))
        choices = listed if isinstance(listed, list) and alone else []  # what multiplies a value makes others of them
        with_value = pass_as is not None and "{v}" in pass_as
        if choices and all(isinstance(choice, bool) for choice in choices) and not with_value:
            action = argparse.BooleanOptionalAction if pass_as is None else "store_true"
            parser.add_argument(option, dest=name, action=action)
        elif choices:
            texts = ", ".join(as_text(choice) for choice in choices).replace("%", "%%")
            parser.add_argument(option, dest=name, type=_one_of(choices), help=f"one of {texts}")
        else:
            kind = entry.get("type") if alone else None
            whole, real = kind in ("int", "log_int"), kind in ("float", "uniform", "loguniform")
            convert: Callable[[str], Any] = float if real else int if whole else _number
            ends = [settings.get(low, settings.get(other)) for low, other in (("low", "start"), ("high", "end"))]
            about = None if None in ends else f"from {json.dumps(ends[0])} to {json.dumps(ends[1])}"
            parser.add_argument(option, dest=name, type=convert, help=about)


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


def _one_of(choices: Sequence[Any]) -> Callable[[str], Any]:
    by_text = {as_text(choice): choice for choice in choices}

    def choice(text: str) -> Any:
        if text not in by_text:
            raise argparse.ArgumentTypeError(f"{text!r} is not one of {', '.join(by_text)}")
        return by_text[text]

    return choice
