"""Whether a command could be started on this machine."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from aimlhpo.command.spec import CommandSpec, command_spec, find_program
from aimlhpo.command.template import THIS_PYTHON, placeholders
from aimlhpo.errors import Problem

if TYPE_CHECKING:
    from aimlhpo.config import Config

_WHERE = "optuna: command"
_PYTHON = re.compile(r"python[\d.]*")


def probe_command(config: Config) -> Iterator[Problem]:
    """A problem where the program, or the script that Python is to run, is not there."""
    spec = command_spec(config)
    if spec is None:
        return
    program = spec.words[0]
    # The jobs' own lines (modules, environments) may bring programs that are not on PATH here.
    elsewhere = config.slurm is not None and bool(config.slurm.kernel or config.slurm.bash) and "/" not in program
    if not elsewhere and find_program(program, spec.working_directory, spec.environment()) is None:
        near = THIS_PYTHON if _PYTHON.fullmatch(program) else None
        where = f"in {spec.working_directory}" if "/" in program else "on PATH"
        yield Problem(_WHERE, f"no program {program!r} {where}", "a program that is installed and executable", near)
    yield from _script(spec)


def _script(spec: CommandSpec) -> Iterator[Problem]:
    """`python train.py`: the file has to be there."""
    is_python = spec.words[0] == THIS_PYTHON or _PYTHON.fullmatch(Path(spec.words[0]).name)
    if not is_python or len(spec.words) < 2:
        return
    script = spec.words[1]
    if script.startswith("-") or placeholders(script) or Path(spec.working_directory, script).is_file():
        return
    yield Problem(
        _WHERE,
        f"no file {script!r} in {spec.working_directory}",
        "a script there; `optuna: working_directory` decides where",
    )
