"""A program as the objective: what a worker is told of it, and where the program is found."""

from __future__ import annotations

import os
import re
import shutil
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

THIS_PYTHON = "{python}"  # in a command, the Python that aimlhpo itself runs with
_VARIABLE = re.compile(r"\$\{([A-Za-z_][A-Za-z0-9_]*)\}")


@dataclass(frozen=True)
class CommandSpec:
    """A program to run once for each trial.

    Attributes:
        words: the command's words, with their placeholders.
        working_directory: where it runs, and where relative paths in it start.
        files: the directory of the files that {config} stands for.
        pass_as: the parameters' own templates, by their names in the study.
        variables: extra environment variables; `${VARIABLE}` in them is not yet replaced.
        kill_after: seconds between SIGTERM and SIGKILL.
    """

    words: tuple[str, ...]
    working_directory: str
    files: str
    pass_as: Mapping[str, str] = field(default_factory=dict)
    variables: Mapping[str, str] = field(default_factory=dict)
    kill_after: float = 10.0

    def environment(self, given: Mapping[str, str] = os.environ) -> dict[str, str]:
        """The program's environment: the worker's, which names the slot's GPUs, with the extra variables."""

        def expand(value: str) -> str:
            return _VARIABLE.sub(lambda match: given.get(match[1], match[0]), value)

        return {**given, **{name: expand(value) for name, value in self.variables.items()}}

    @property
    def source(self) -> str:
        """The file whose text decides what runs: the script in the command where there is one, else the program."""
        for word in self.words[1:]:
            path = Path(self.working_directory, word)
            if not word.startswith("-") and path.is_file():
                return str(path)
        return find_program(self.words[0], self.working_directory, self.environment()) or self.words[0]


def find_program(word: str, directory: str, environment: Mapping[str, str]) -> str | None:
    """The file of a program: on PATH, or from the working directory where the word has a slash; None without one."""
    if word == THIS_PYTHON:
        return sys.executable
    if os.sep in word:
        path = os.path.join(directory, word)
        return path if os.path.isfile(path) and os.access(path, os.X_OK) else None
    return shutil.which(word, path=environment.get("PATH"))
