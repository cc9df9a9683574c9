"""Options of a script for the parameters of a search space, so that they are written down in one place."""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from aimlhpo.command.arguments import as_text
from aimlhpo.command.template import TemplateError, split

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
    from aimlhpo.config.yaml_loader import load_yaml

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
