"""What a worker needs to know to run a program as the objective."""

from __future__ import annotations

import os
import re
import shutil
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from aimlhpo.command.template import THIS_PYTHON, split

if TYPE_CHECKING:
    from aimlhpo.config import Config

_VARIABLE = re.compile(r"\$\{([A-Za-z_][A-Za-z0-9_]*)\}")


@dataclass(frozen=True)
class CommandSpec:
    """A program as the objective.

    `words` are the command's, with their placeholders; `pass_as` the parameters' own templates by study name;
    `variables` the extra environment variables, `${VARIABLE}` in them not yet followed; `files` the directory of the
    {config} files; `patience` the seconds between SIGTERM and SIGKILL.
    """

    words: tuple[str, ...]
    working_directory: str
    files: str
    pass_as: Mapping[str, str] = field(default_factory=dict)
    variables: Mapping[str, str] = field(default_factory=dict)
    patience: float = 10.0

    def environment(self, given: Mapping[str, str] = os.environ) -> dict[str, str]:
        """The program's environment: the worker's, which names the slot's GPUs, with the extra variables."""
        return {**given, **{name: _expand(value, given) for name, value in self.variables.items()}}

    @property
    def source(self) -> str:
        """The file whose text decides what runs: the script in the command where there is one, else the program."""
        for word in self.words[1:]:
            path = Path(self.working_directory, word)
            if not word.startswith("-") and path.is_file():
                return str(path)
        return find_program(self.words[0], self.working_directory, self.environment()) or self.words[0]


def command_spec(config: Config) -> CommandSpec | None:
    """The configuration's command; None where the objective is a Python class."""
    options = config.optuna
    if options.command is None:
        return None
    return CommandSpec(
        words=tuple(split(options.command)),
        working_directory=options.working_directory or os.getcwd(),
        files=str(config.paths.state / "commands"),
        pass_as={p.name: p.pass_as for p in options.parameters.values() if p.pass_as is not None},
        variables=dict(options.environment),
    )


def find_program(word: str, directory: str, environment: Mapping[str, str]) -> str | None:
    """The file of a program: on PATH, or from the working directory where the word has a slash."""
    if word == THIS_PYTHON:
        return sys.executable
    if os.sep in word:
        path = os.path.join(directory, word)
        return path if os.path.isfile(path) and os.access(path, os.X_OK) else None
    return shutil.which(word, path=environment.get("PATH"))


def _expand(value: str, given: Mapping[str, str]) -> str:
    return _VARIABLE.sub(lambda match: given.get(match[1], match[0]), value)
