"""What is wrong with a `command` and the keys that belong to it, seen from the files alone.
Whether a command could be started on this machine.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from aimlhpo.config.command import (
    ALL,
    CONFIG,
    CONFIG_JSON,
    PARAMETERS,
    RESERVED,
    VALUE,
    TemplateError,
    command_spec,
    placeholders,
    split,
)
from aimlhpo.config.resolve import variable_problems
from aimlhpo.errors import Problem, did_you_mean, key_path, listing, show
from aimlhpo.objective.command import THIS_PYTHON, CommandSpec, find_program
from aimlhpo.space.declared import Declared, declared
from aimlhpo.space.model_paths import exists
from aimlhpo.space.parameter_types import DOMAINS

if TYPE_CHECKING:
    from aimlhpo.config.schema import Config

_HERE = key_path("optuna", "command")
_ONLY_WITH_COMMAND = ("working_directory", "environment")
_GPUS = "CUDA_VISIBLE_DEVICES"
_OPERATORS = frozenset(("|", "||", "&&", "&", ";", ">", ">>", "<", "<<", "2>", "2>&1", "&>"))


def command_problems(optuna: Mapping[str, Any], model: Mapping[str, Any]) -> Iterator[Problem]:
    """Every mistake in `command`, `pass-as`, `working_directory` and `environment`."""
    command = optuna.get("command")
    parameters = declared(optuna.get("parameters"), model)
    if command is None:
        yield from _without_command(optuna, parameters)
        return
    if optuna.get("objective") is not None:
        yield Problem(_HERE, "is given, and `objective` too", "one of the two")
    for parameter in parameters:
        yield from _pass_as_problems(parameter)
    yield from _directory_problems(optuna.get("working_directory"))
    environment = optuna.get("environment")
    for name, value in environment.items() if isinstance(environment, Mapping) else ():
        where = key_path("optuna", "environment", name)
        yield from variable_problems(where, value)
        if name == _GPUS or str(name).startswith("AIMLHPO_"):
            yield Problem(where, "is set for each trial", "another variable; `optuna: gpu` gives each worker its GPUs")
    if isinstance(command, str) and command.strip():
        yield from _word_problems(command, parameters, model)


def _without_command(optuna: Mapping[str, Any], parameters: Sequence[Declared]) -> Iterator[Problem]:
    given: list[tuple[str, ...]] = [("optuna", key) for key in _ONLY_WITH_COMMAND if optuna.get(key) is not None]
    given += [(*p.where, "pass-as") for p in parameters if "pass-as" in p.entry]
    for where in given:
        yield Problem(key_path(*where), "has a meaning for `command` only", "`command` in place of `objective`")


def _word_problems(command: str, parameters: Sequence[Declared], model: Mapping[str, Any]) -> Iterator[Problem]:
    try:
        words = split(command)
        named = [placeholders(word) for word in words]
    except TemplateError as error:
        yield Problem(_HERE, str(error), "balanced quotes and braces; {{ and }} stand for braces themselves")
        return
    if not words or not words[0]:
        yield Problem(_HERE, "is empty", "a program and its arguments")
        return
    problems = [*_program_problems(words[0], named[0]), *_shell_problems(words)]
    for word, names in zip(words, named, strict=True):
        problems += _placeholder_problems(word, names, parameters)
    yield from problems
    used = {name for names in named for name in names}
    yield from () if problems else _unused(used, parameters, model)


def _program_problems(word: str, names: Sequence[str]) -> Iterator[Problem]:
    if names and word != THIS_PYTHON:
        yield Problem(
            _HERE, f"begins with the placeholder {word}", "a program: no value of a trial may decide what runs"
        )
    elif "=" in word and os.sep not in word.partition("=")[0]:
        yield Problem(_HERE, f"begins with {show(word)}", "a program; variables stand under `optuna: environment`")


def _shell_problems(words: Sequence[str]) -> Iterator[Problem]:
    for word in dict.fromkeys(words):
        if word in _OPERATORS or word.startswith(("$(", "`")):
            found = f"{show(word)} is for a shell, and none is involved"
            yield Problem(_HERE, found, "one program and its arguments; write a script for more and name it here")


def _placeholder_problems(word: str, names: Sequence[str], parameters: Sequence[Declared]) -> Iterator[Problem]:
    known = [*RESERVED, *dict.fromkeys(name for p in parameters for name in (p.name, p.key))]
    for name in names:
        if name not in known:
            near = did_you_mean(name, known)
            legal = f"{listing(f'{{{one}}}' for one in known)}; {{{{ and }}}} for braces themselves"
            yield Problem(_HERE, f"unknown placeholder {{{name}}}", legal, f"{{{near}}}" if near else None)
        elif name == PARAMETERS and word != ALL:
            yield Problem(_HERE, f"{{{PARAMETERS}}} stands inside of {show(word)}", f"{ALL} as a word of its own")


def _unused(used: set[str], parameters: Sequence[Declared], model: Mapping[str, Any]) -> Iterator[Problem]:
    """Parameters whose values would never reach the program."""
    with_config = bool(used & {CONFIG, CONFIG_JSON})
    for parameter in parameters if PARAMETERS not in used else ():
        if parameter.name in used or parameter.key in used or (with_config and _in_config(parameter, model)):
            continue
        legal = f"{{{parameter.name}}} or {ALL}" + (", or {config} for parameters of the model config")
        yield Problem(_HERE, f"does not hand over the parameter {parameter.name}", legal)


def _in_config(parameter: Declared, model: Mapping[str, Any]) -> bool:
    return parameter.entry.get("substitute", True) not in (False, 0) and exists(model, parameter.key)


def _pass_as_problems(parameter: Declared) -> Iterator[Problem]:
    text, where = parameter.entry.get("pass-as"), key_path(*parameter.where, "pass-as")
    if not isinstance(text, str) or not text.strip():
        return
    try:
        names = [name for word in split(text) for name in placeholders(word)]
    except TemplateError as error:
        yield Problem(where, str(error), "balanced quotes and braces; {{ and }} stand for braces themselves")
        return
    for name in names:
        if name != VALUE:
            yield Problem(where, f"unknown placeholder {{{name}}}", "{v}, the value", "{v}")
    if not names and parameter.sound and not _is_flag(parameter):
        yield Problem(where, f"{show(text)} has no {{v}}", "the place of the value, as in --name={v}")


def _is_flag(parameter: Declared) -> bool:
    """Whether all values are true, false or null: those need no place of their own."""
    values = DOMAINS[parameter.entry["type"]].values
    return values is not None and all(
        value is None or isinstance(value, bool) for value in values(parameter.entry["settings"])
    )


def _directory_problems(directory: Any) -> Iterator[Problem]:
    where = key_path("optuna", "working_directory")
    yield from variable_problems(where, directory)
    if isinstance(directory, str) and "${" not in directory and not Path(directory).is_dir():
        yield Problem(where, f"no such directory: {directory}", "a directory that is there")


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
