"""What is wrong with a `command` and the keys that belong to it.

`command_problems` sees it from the files alone; `probe_command` looks whether it could be started on this machine.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

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
from aimlhpo.objective.messages import THIS_PYTHON, find_program
from aimlhpo.space.search_space import Parameter, SearchSpace

if TYPE_CHECKING:
    from aimlhpo.config.schema import Config

_HERE = key_path("optuna", "command")
_OPERATORS = frozenset(("|", "||", "&&", "&", ";", ">", ">>", "<", "<<", "2>", "2>&1", "&>"))
_PYTHON = re.compile(r"python[\d.]*")
_BALANCED = "balanced quotes and braces; {{ and }} stand for braces themselves"


def command_problems(config: Config) -> Iterator[Problem]:
    """Every mistake in `command`, `pass-as`, `working_directory` and `environment`."""
    optuna, parameters = config.optuna, config.space.parameters
    if optuna.command is None:
        given: list[tuple[str, ...]] = [("optuna", "working_directory")] if optuna.working_directory is not None else []
        given += [("optuna", "environment")] if "environment" in optuna.model_fields_set else []
        given += [(*parameter.where, "pass-as") for parameter in parameters if parameter.pass_as is not None]
        for place in given:
            yield Problem(key_path(*place), "has a meaning for `command` only", "`command` in place of `objective`")
        return
    if optuna.objective is not None:
        yield Problem(_HERE, "is given, and `objective` too", "one of the two")
    for parameter in parameters:
        if parameter.pass_as is not None:
            yield from _pass_as_problems(parameter, parameter.pass_as)
    directory, where = optuna.working_directory, key_path("optuna", "working_directory")
    unset = variable_problems(where, directory, path=True)
    yield from unset
    if directory is not None and not unset and not Path(directory).is_dir():
        yield Problem(where, f"no such directory: {directory}", "a directory that is there")
    for name, value in optuna.environment.items():
        where = key_path("optuna", "environment", name)
        yield from variable_problems(where, value)
        if name == "CUDA_VISIBLE_DEVICES" or name.startswith("AIMLHPO_"):
            yield Problem(where, "is set for each trial", "another variable; `optuna: gpu` gives each worker its GPUs")
    yield from _word_problems(optuna.command, config.space)


def _word_problems(command: str, space: SearchSpace) -> Iterator[Problem]:
    try:
        words = split(command)
        named = [placeholders(word) for word in words]
    except TemplateError as error:
        yield Problem(_HERE, str(error), _BALANCED)
        return
    if not words or not words[0]:
        yield Problem(_HERE, "is empty", "a program and its arguments")
        return
    problems: list[Problem] = []
    program = words[0]
    if named[0] and program != THIS_PYTHON:
        legal = "a program: no value of a trial may decide what runs"
        problems.append(Problem(_HERE, f"begins with the placeholder {program}", legal))
    elif "=" in program and os.sep not in program.partition("=")[0]:
        legal = "a program; variables stand under `optuna: environment`"
        problems.append(Problem(_HERE, f"begins with {show(program)}", legal))
    for word in dict.fromkeys(words):
        if word in _OPERATORS or word.startswith(("$(", "`")):
            legal = "one program and its arguments; write a script for more and name it here"
            problems.append(Problem(_HERE, f"{show(word)} is for a shell, and none is involved", legal))
    known = [*RESERVED, *dict.fromkeys(name for p in space.parameters for name in (p.name, p.key))]
    for word, name in ((word, name) for word, names in zip(words, named, strict=True) for name in names):
        if name not in known:
            near = did_you_mean(name, known)
            legal = f"{listing(f'{{{one}}}' for one in known)}; {{{{ and }}}} for braces themselves"
            problems.append(Problem(_HERE, f"unknown placeholder {{{name}}}", legal, f"{{{near}}}" if near else None))
        elif name == PARAMETERS and word != ALL:
            found = f"{{{PARAMETERS}}} stands inside of {show(word)}"
            problems.append(Problem(_HERE, found, f"{ALL} as a word of its own"))
    yield from problems or _unused({name for names in named for name in names}, space)


def _unused(used: set[str], space: SearchSpace) -> Iterator[Problem]:
    """Parameters whose values would never reach the program."""
    with_config = bool(used & {CONFIG, CONFIG_JSON})
    for parameter in space.parameters if PARAMETERS not in used else ():
        in_config = with_config and parameter.path is not None
        if parameter.name not in used and parameter.key not in used and not in_config:
            legal = f"{{{parameter.name}}} or {ALL}" + (", or {config} for parameters of the model config")
            yield Problem(_HERE, f"does not hand over the parameter {parameter.name}", legal)


def _pass_as_problems(parameter: Parameter, text: str) -> Iterator[Problem]:
    where = key_path(*parameter.where, "pass-as")
    try:
        names = [name for word in split(text) for name in placeholders(word)]
    except TemplateError as error:
        yield Problem(where, str(error), _BALANCED)
        return
    for name in names:
        if name != VALUE:
            yield Problem(where, f"unknown placeholder {{{name}}}", "{v}, the value", "{v}")
    if names or not parameter.sound:
        return
    values = parameter.definition.listed(parameter.settings)
    if values is None or not all(value is None or isinstance(value, bool) for value in values):
        yield Problem(where, f"{show(text)} has no {{v}}", "the place of the value, as in --name={v}")


def probe_command(config: Config) -> Iterator[Problem]:
    """A problem where the program, or the script that Python is to run, is not there."""
    spec = command_spec(config)
    if spec is None:
        return
    program = spec.words[0]
    # The jobs' own lines (modules, environments) may bring programs that are not on PATH here.
    elsewhere = any(section.kernel or section.bash for section in config.sections) and "/" not in program
    if not elsewhere and find_program(program, spec.working_directory, spec.environment()) is None:
        near = THIS_PYTHON if _PYTHON.fullmatch(program) else None
        where = f"in {spec.working_directory}" if "/" in program else "on PATH"
        yield Problem(_HERE, f"no program {program!r} {where}", "a program that is installed and executable", near)
    # `python train.py`: the file has to be there, too.
    is_python = program == THIS_PYTHON or _PYTHON.fullmatch(Path(program).name) is not None
    script = spec.words[1] if is_python and len(spec.words) > 1 else "-"
    if script.startswith("-") or placeholders(script) or Path(spec.working_directory, script).is_file():
        return
    legal = "a script there; `optuna: working_directory` decides where"
    yield Problem(_HERE, f"no file {script!r} in {spec.working_directory}", legal)
