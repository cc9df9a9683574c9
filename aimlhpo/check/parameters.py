"""What is wrong with a search space, and with a `command` that is given its values.

Parameters against the model YAML and against each other, values that are said to lie in the space, and what a full grid
cannot have beside it; `command`, `pass-as` and the other keys that say how values reach a program. All of this is seen
from the files alone; `probe_command` looks whether the program could be started on this machine.

All functions take a Config whose parameters may have problems of their own (`Parameter.sound` says so), and tell each
mistake once.
"""

from __future__ import annotations

import math
import os
import re
from collections.abc import Iterator
from graphlib import CycleError
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
from aimlhpo.config.fields import AUTO
from aimlhpo.config.resolve import variable_problems
from aimlhpo.errors import Problem, did_you_mean, key_path, listing, show
from aimlhpo.objective.messages import THIS_PYTHON, find_program
from aimlhpo.space.model_paths import exists, missing, nearest
from aimlhpo.space.parameter_types import is_number
from aimlhpo.space.search_space import Parameter, SearchSpace, grid_of, is_grid, size

if TYPE_CHECKING:
    from aimlhpo.config.schema import Config

MOST_PERMUTATIONS = 1_000_000
_COMMAND = key_path("optuna", "command")
_OPERATORS = frozenset(("|", "||", "&&", "&", ";", ">", ">>", "<", "<<", "2>", "2>&1", "&>"))
_PYTHON = re.compile(r"python[\d.]*")
_BALANCED = "balanced quotes and braces; {{ and }} stand for braces themselves"


def space_problems(config: Config) -> list[Problem]:
    """Every mistake in the search space and the enqueued trials."""
    space = config.space
    problems = list(space.problems)
    for parameter in space.parameters:
        problems += parameter.problems
        if ":" in parameter.key and parameter.substitute and not exists(config.model, parameter.key):
            absent = missing(config.model, parameter.key)
            legal = "a path that the model YAML has; or `substitute: false` where only custom_updates reads the value"
            problems.append(Problem(key_path(*parameter.where), absent.found, legal, absent.suggestion))
    problems += _shared_names(space)
    problems += _unresolved(config)
    try:
        _ = space.in_order
    except CycleError as error:
        circle = " -> ".join(reversed([space.by_name[name].key for name in error.args[1]]))
        found = f"depend on each other in a circle: {circle}"
        problems.append(Problem(key_path("optuna", "parameters"), found, "no circle"))
    problems += _factors(space)
    sampler = config.optuna.sampler
    for parameter in space.parameters if sampler is not None and sampler.type == "GridSampler" else ():
        if any(dependency.type == "optimize_iff" for dependency in parameter.dependencies):
            where = key_path(*parameter.where, "dependency")
            legal = "another sampler: BruteForceSampler"
            problems.append(Problem(where, "GridSampler cannot take conditional parameters", legal))
    return [*problems, *_enqueued(config)]


def _shared_names(space: SearchSpace) -> Iterator[Problem]:
    """One path in both files, and names that two parameters share."""
    keys: dict[str, Parameter] = {}
    names: dict[str, Parameter] = {}
    for parameter in space.parameters:
        if parameter.key in keys:
            other = key_path(*keys[parameter.key].where)
            yield Problem(key_path(*parameter.where), f"is searched twice: {other} has it too", "one of the two")
        elif parameter.name in names:
            taken = f"the name {show(parameter.name)} is taken by {names[parameter.name].key}"
            yield Problem(key_path(*parameter.where, parameter.words[1], "name"), taken, "a name of its own")
        keys.setdefault(parameter.key, parameter)
        names.setdefault(parameter.name, parameter)


def _unresolved(config: Config) -> Iterator[Problem]:
    """Dependencies on what is neither a parameter nor in the model YAML."""
    known = (*config.space.by_key, *config.space.by_name)
    for parameter in config.space.parameters:
        for dependency in parameter.dependencies:
            if not dependency.resolved:
                near = did_you_mean(dependency.on, known) or nearest(config.model, dependency.on.replace(".", ":"))
                found = f"{show(dependency.on)} is neither a parameter nor in the model YAML"
                legal = "a parameter's key or name, or a model path"
                yield Problem(key_path(*parameter.where, "dependency", "on"), found, legal, near)


def _factors(space: SearchSpace) -> Iterator[Problem]:
    """Both factors of a multiplication must be numbers."""
    for parameter in space.parameters:
        where = key_path(*parameter.where, "dependency")
        for dependency in parameter.dependencies:
            if dependency.type != "multiply" or not dependency.resolved:
                continue
            if parameter.sound and not _is_numeric(parameter):
                yield Problem(where, "multiplies a parameter whose values are not all numbers", "numbers")
            other = space.by_name[dependency.name] if dependency.name is not None else None
            if other is None and not is_number(dependency.fixed):
                found = f"{dependency.on} is {show(dependency.fixed)}, not a number"
                yield Problem(key_path(where, "on"), found, "a number")
            elif other is not None and other.sound and not _is_numeric(other):
                yield Problem(key_path(where, "on"), f"the values of {other.key} are not all numbers", "numbers")


def _is_numeric(parameter: Parameter) -> bool:
    values = parameter.definition.listed(parameter.settings)
    return values is None or all(map(is_number, values))


def _enqueued(config: Config) -> Iterator[Problem]:
    """Values of enqueued trials that are not the parameters'."""
    known = config.space.by_key | config.space.by_name
    for index, trial in enumerate(config.optuna.enqueue):
        for key, value in trial.items():
            where, parameter = key_path("optuna", "enqueue", index, key), known.get(str(key))
            if parameter is None:
                legal = listing(known) or "none: no parameters are declared"
                yield Problem(where, "no parameter of this name or key", legal, did_you_mean(key, known))
            elif parameter.sound and (legal_value := parameter.definition.legal(parameter.settings, value)):
                yield Problem(where, f"{show(value)} is not in the search space", legal_value)


def grid_problems(config: Config) -> list[Problem]:
    """Mistakes that a search space, correct otherwise, has as a full grid."""
    parameters = config.space.parameters
    if not any(parameter.of_grid for parameter in parameters):
        return []
    if not is_grid(config.space):
        infinite = [parameter.key for parameter in parameters if parameter.sound and not size(parameter)]
        if not infinite:
            return []
        # `random` asks for a number of values, and a sampler would not stop at them.
        what = f"is a grid's type, and {infinite[0]} has infinitely many values, which makes no grid"
        legal = "a parameter with finitely many values, or no `random` parameters in this study"
        return [Problem(key_path(*p.where, p.words[0]), what, legal) for p in parameters if p.type == "random"]
    problems = list(_not_in_a_grid(config))
    bound = math.prod(map(size, parameters))
    if bound > MOST_PERMUTATIONS:
        what = f"make a grid of {bound} permutations"
        problems.append(Problem(key_path("optuna", "parameters"), what, f"up to {MOST_PERMUTATIONS}"))
    return problems


def too_many_trials_problems(config: Config) -> Iterator[Problem]:
    """More trials than a grid without problems has permutations."""
    grid = grid_of(config.space)
    if grid is not None and config.optuna.n_trials > grid.permutations:
        what = f"{config.optuna.n_trials} is more than the {grid.permutations} permutations of the grid"
        legal = f"up to {grid.permutations}; or leave it out, and all of them run"
        yield Problem(key_path("optuna", "n_trials"), what, legal)


def _not_in_a_grid(config: Config) -> Iterator[Problem]:
    """What chooses among combinations, of which all are run, and conditions that would make their number unknown."""
    if config.optuna.sampler is not None and config.optuna.sampler.type != AUTO:
        what = "a grid runs every combination, so that no sampler chooses any"
        yield Problem(key_path("optuna", "sampler"), what, "no sampler; or other types than the grid's")
    for key in ("enqueue", "enqueue_default"):
        if getattr(config.optuna, key):
            yield Problem(key_path("optuna", key), "a grid queues every combination itself", f"no {key}")
    if config.optuna.warm_start_from is not None:
        what = "a grid runs every combination, so that nothing is learned from other trials"
        yield Problem(key_path("optuna", "warm_start_from"), what, "no warm_start_from; or other types than the grid's")
    for parameter in config.space.parameters:
        for dependency in parameter.dependencies:
            other = config.space.by_name[dependency.name] if dependency.name is not None else None
            if dependency.type == "optimize_iff" and other is not None and other.type == "random":
                where = key_path(*parameter.where, "dependency", "on")
                what = f"{dependency.on} is drawn at random, so that the number of permutations would not be known"
                yield Problem(where, what, "a parameter of another type")


# --- the command ---


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
        yield Problem(_COMMAND, "is given, and `objective` too", "one of the two")
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
        yield Problem(_COMMAND, str(error), _BALANCED)
        return
    if not words or not words[0]:
        yield Problem(_COMMAND, "is empty", "a program and its arguments")
        return
    problems: list[Problem] = []
    program = words[0]
    if named[0] and program != THIS_PYTHON:
        legal = "a program: no value of a trial may decide what runs"
        problems.append(Problem(_COMMAND, f"begins with the placeholder {program}", legal))
    elif "=" in program and os.sep not in program.partition("=")[0]:
        legal = "a program; variables stand under `optuna: environment`"
        problems.append(Problem(_COMMAND, f"begins with {show(program)}", legal))
    for word in dict.fromkeys(words):
        if word in _OPERATORS or word.startswith(("$(", "`")):
            legal = "one program and its arguments; write a script for more and name it here"
            problems.append(Problem(_COMMAND, f"{show(word)} is for a shell, and none is involved", legal))
    known = [*RESERVED, *dict.fromkeys(name for p in space.parameters for name in (p.name, p.key))]
    for word, name in ((word, name) for word, names in zip(words, named, strict=True) for name in names):
        if name not in known:
            near = did_you_mean(name, known)
            legal = f"{listing(f'{{{one}}}' for one in known)}; {{{{ and }}}} for braces themselves"
            problems.append(
                Problem(_COMMAND, f"unknown placeholder {{{name}}}", legal, f"{{{near}}}" if near else None)
            )
        elif name == PARAMETERS and word != ALL:
            found = f"{{{PARAMETERS}}} stands inside of {show(word)}"
            problems.append(Problem(_COMMAND, found, f"{ALL} as a word of its own"))
    yield from problems or _unused({name for names in named for name in names}, space)


def _unused(used: set[str], space: SearchSpace) -> Iterator[Problem]:
    """Parameters whose values would never reach the program."""
    with_config = bool(used & {CONFIG, CONFIG_JSON})
    for parameter in space.parameters if PARAMETERS not in used else ():
        in_config = with_config and parameter.path is not None
        if parameter.name not in used and parameter.key not in used and not in_config:
            legal = f"{{{parameter.name}}} or {ALL}" + (", or {config} for parameters of the model config")
            yield Problem(_COMMAND, f"does not hand over the parameter {parameter.name}", legal)


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
        yield Problem(_COMMAND, f"no program {program!r} {where}", "a program that is installed and executable", near)
    # `python train.py`: the file has to be there, too.
    is_python = program == THIS_PYTHON or _PYTHON.fullmatch(Path(program).name) is not None
    script = spec.words[1] if is_python and len(spec.words) > 1 else "-"
    if script.startswith("-") or placeholders(script) or Path(spec.working_directory, script).is_file():
        return
    legal = "a script there; `optuna: working_directory` decides where"
    yield Problem(_COMMAND, f"no file {script!r} in {spec.working_directory}", legal)
