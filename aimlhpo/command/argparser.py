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


def add_to_argparse(parser: argparse.ArgumentParser, space: str | os.PathLike[str] | Mapping[str, Any]) -> None:
    """Add an option for every parameter: `--NAME`, or the one that its `pass-as` begins with.

    `space` is the path of the hyperparameter YAML, or its `optuna: parameters` as a dict. The options convert their
    values and have no defaults: `parser.set_defaults(NAME=...)` sets them. Raises ConfigError for a file that cannot
    be read, ValueError for one that declares no parameters.
    """
    for key, entry in _entries(space).items():
        settings = entry.get("settings") or {}
        _add(parser, str(settings.get("name", key)), str(entry.get("type")), settings, entry.get("pass-as"))


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


def _add(
    parser: argparse.ArgumentParser, name: str, kind: str, settings: Mapping[str, Any], pass_as: str | None
) -> None:
    option, choices = _option(name, pass_as), settings.get("choices")
    if isinstance(choices, list) and all(isinstance(choice, bool) for choice in choices) and not _placed(pass_as):
        action = argparse.BooleanOptionalAction if pass_as is None else "store_true"
        parser.add_argument(option, dest=name, action=action)
    elif isinstance(choices, list):
        texts = ", ".join(as_text(choice) for choice in choices).replace("%", "%%")
        parser.add_argument(option, dest=name, type=_one_of(choices), help=f"one of {texts}")
    elif kind == "constant":
        parser.add_argument(option, dest=name, type=_one_of([settings.get("value")]), default=settings.get("value"))
    else:
        whole = kind in _WHOLE or bool(settings.get("cast_int"))
        parser.add_argument(option, dest=name, type=int if whole else float, help=_range(settings))


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


def _range(settings: Mapping[str, Any]) -> str:
    return f"from {json.dumps(settings.get('low'))} to {json.dumps(settings.get('high'))}"


def _one_of(choices: Sequence[Any]) -> Callable[[str], Any]:
    by_text = {as_text(choice): choice for choice in choices}

    def choice(text: str) -> Any:
        if text not in by_text:
            raise argparse.ArgumentTypeError(f"{text!r} is not one of {', '.join(by_text)}")
        return by_text[text]

    return choice
