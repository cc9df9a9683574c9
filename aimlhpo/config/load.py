"""From two YAML files and the command line to a typed configuration.

`read_config` applies the command line, fills in what keys leave open, and lets the schema check each key by itself.
What the schema refuses is left out, and told beside the configuration, so that the deeper checks of
`aimlhpo.check.settings` run on typed data in any case and all problems are told at once. `load_snapshot` reads the copy
that lies beside a study.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError

from aimlhpo.config.echo_opt import Edit, echo_opt_edits, edit_data, pbs_problem
from aimlhpo.config.fields import as_list
from aimlhpo.config.optuna_section import OptunaSection
from aimlhpo.config.overrides import Overridden, apply
from aimlhpo.config.paths import StudyPaths
from aimlhpo.config.resolve import relocate, resolve, resolve_resources, section_name
from aimlhpo.config.sbatch_options import normalise
from aimlhpo.config.schema import Config, HyperparameterFile
from aimlhpo.config.yaml import from_python, load_yaml
from aimlhpo.errors import ConfigError, Problem, did_you_mean, file_problem, key_path, listing, show
from aimlhpo.space.parameter_types import PARAMETER_TYPES
from aimlhpo.space.search_space import REFUSED_TYPE, SearchSpace

Location = tuple[str | int, ...]

Source = str | Path | Mapping[str, Any]
"""A YAML file, or what it would hold."""


@dataclass(frozen=True)
class Reading:
    """A configuration as far as it could be read.

    `config` has defaults in place of what the schema refused: `refused` are these keys of the `optuna` section.
    `problems` are those of the command line and of the schema; `sources` says which argument of the command line gave
    a key its value.
    """

    config: Config
    refused: frozenset[str] = frozenset()
    problems: tuple[Problem, ...] = ()
    sources: Mapping[str, str] = field(default_factory=dict)

    def with_n_trials(self, n_trials: int) -> Reading:
        """The same with the number of trials that the search space decides."""
        problems = tuple(problem for problem in self.problems if problem.where != "optuna: n_trials")
        return replace(
            self, config=self.config.with_n_trials(n_trials), problems=problems, refused=self.refused - {"n_trials"}
        )


def read_config(
    hyperparameters: Source, model: Source, overrides: Sequence[str] = (), flags: Mapping[str, Any] | None = None
) -> Reading:
    """Read both files, or take what is given in their places, apply the command line, and check each key by itself.

    Raises ConfigError for a file that cannot be read.
    """
    target = _read_both(hyperparameters, model)
    target.problems.extend(_in_our_words(target.hyperparameters))
    apply(target, overrides, flags or {})
    storage_named = resolve(target.hyperparameters, target.problems)
    reading = _typed(target.hyperparameters, target.model, storage_named)
    if resolve_resources(target.hyperparameters.get("optuna"), target.model, reading.config.space):
        reading = _typed(target.hyperparameters, target.model, storage_named)
    return replace(reading, problems=(*target.problems, *reading.problems), sources=target.sources)


def read_again(config: Config, overrides: Sequence[str]) -> Reading:
    """A study's configuration with changes from the command line, each `section:key=value`."""
    target = Overridden(copy.deepcopy(config.hyperparameters), copy.deepcopy(config.model))
    apply(target, overrides, {})
    resolve(target.hyperparameters, target.problems)
    reading = _typed(target.hyperparameters, target.model, config.storage_named)
    return replace(reading, problems=(*target.problems, *reading.problems), sources=target.sources)


def with_values(config: Config, values: Mapping[str, Any]) -> Config:
    """The configuration with other values of whole keys, by `section:key`; None takes a key away.

    Keys of a section that is not there are left out: the files may have changed since they were changed.

    Raises ConfigError for a value that is not legal.
    """
    hyperparameters = copy.deepcopy(config.hyperparameters)
    for path, value in values.items():
        inner, key = holder_of(hyperparameters, path)
        if inner is None:
            continue
        if value is None:
            inner.pop(key, None)
        else:
            inner[key] = value
    reading = _typed(hyperparameters, config.model, config.storage_named)
    if reading.problems:
        raise ConfigError(reading.problems)
    return replace(reading.config, section=config.section)


def holder_of(hyperparameters: Mapping[str, Any], path: str) -> tuple[dict[str, Any] | None, str]:
    """The mapping that `section:key`, or `slurm:NAME:key` in a list, leads into, and the key; None: it is not there."""
    section, _, key = path.partition(":")
    name, _, key = key.rpartition(":")
    inner = hyperparameters.get(section)
    if isinstance(inner, list):
        inner = next((item for item in inner if isinstance(item, dict) and item.get("name") == name), None)
    return (inner if isinstance(inner, dict) and (not name or name == inner.get("name")) else None), key


def differences(before: Config, after: Config) -> dict[str, Any]:
    """The keys of the hyperparameter YAML that mean something else, as `section:key`, with the new value as written.

    A key that is not written any more has None. Where both have a section, its keys are compared; where only one has
    it, it is told as a whole.
    """
    found: dict[str, Any] = {}
    old, new = _by_path(before), _by_path(after)
    for path in dict.fromkeys((*old, *new)):
        if path not in old or path not in new:
            found["slurm"] = after.hyperparameters.get("slurm")
            continue
        one, other = old[path], new[path]
        changed = [key for key in type(other).model_fields if getattr(one, key) != getattr(other, key)]
        found |= {f"{path}:{key}": written(after, f"{path}:{key}") for key in changed}
    return found


def written(config: Config, path: str) -> Any:
    """What the hyperparameter YAML says at `section:key`, or `slurm:NAME:key` in a list; None: it says nothing."""
    inner, key = holder_of(config.hyperparameters, path)
    return None if inner is None else inner.get(key)


def _by_path(config: Config) -> dict[str, BaseModel]:
    """The sections by the paths of their keys on the command line."""
    slurm = {":".join(config.keys_of(each)): each for each in config.sections}
    return {"log": config.log, **slurm, "optuna": config.optuna}


def load_target(named: Path) -> Config:
    """The configuration that a study was last started with; `named` is its directory or its hyperparameter file.

    Raises ConfigError where there is no study.
    """
    legal = "a directory that `aimlhpo optimize` has written to (save_path), or the hyperparameter file"
    if not named.exists():
        raise ConfigError(Problem(str(named), "there is no such file or directory", legal))
    paths = StudyPaths(named.absolute(), "") if named.is_dir() else load_paths(named)
    try:
        if not paths.hyperparameters.exists():
            raise ConfigError(Problem(str(named), f"{paths.save_path} holds no study", legal))
    except PermissionError as error:
        readable = f"{paths.results.name}, {paths.best.name} and the logs; the study itself is its owner's alone"
        raise ConfigError(replace(file_problem(error), legal=readable)) from error
    return load_snapshot(paths)


def load_snapshot(paths: StudyPaths) -> Config:
    """The configuration that the study was last started with, for the place where it lies now. Raises ConfigError."""
    target = _read_both(paths.hyperparameters, paths.model)
    relocate(target.hyperparameters, str(paths.save_path))
    return config_of(target.hyperparameters, target.model)


def config_of(hyperparameters: dict[str, Any], model: dict[str, Any]) -> Config:
    """The configuration of data in which every path is absolute and every name filled in. Raises ConfigError."""
    reading = _typed(hyperparameters, model, storage_named=True)
    if reading.problems:
        raise ConfigError(reading.problems)
    return reading.config


def load_paths(hyperparameters: Path) -> StudyPaths:
    """Where the study of a hyperparameter YAML keeps its files; nothing else of it is checked. Raises ConfigError."""
    data = read_mapping(hyperparameters)
    problems = _in_our_words(data)
    resolve(data, problems)
    optuna = data.get("optuna")
    if not isinstance(optuna, dict) or not isinstance(optuna.get("study_name"), str):
        raise ConfigError([*problems, Problem("optuna: study_name", "is missing", "the name of the study")])
    return StudyPaths(Path(str(optuna["save_path"])), optuna["study_name"])


def edits_of(hyperparameters: Path) -> list[Edit]:
    """What `aimlhpo migrate` would change in a hyperparameter YAML. Raises ConfigError for a file that is none."""
    return echo_opt_edits(read_mapping(hyperparameters))


def _in_our_words(data: dict[str, Any]) -> list[Problem]:
    """Rename, in place, what echo-opt calls otherwise. Returns what cannot be used as it is."""
    edits = echo_opt_edits(data)
    edit_data(data, edits)
    return [problem] if (problem := pbs_problem(edits)) is not None else []


def _read_both(hyperparameters: Source, model: Source) -> Overridden:
    """Both files, or the problems of both."""
    read: list[dict[str, Any]] = []
    problems: list[Problem] = []
    for source, name, dates in ((hyperparameters, "hyperparameters", False), (model, "model", True)):
        try:
            read.append(read_mapping(source, name, dates=dates))
        except ConfigError as error:
            problems += error.problems
    if problems:
        raise ConfigError(problems)
    return Overridden(read[0], read[1])


def read_mapping(source: Source, name: str = "", *, dates: bool = False) -> dict[str, Any]:
    """The data of a YAML file, or of a mapping, which messages call `name`. Raises ConfigError."""
    if isinstance(source, Mapping):
        try:
            return dict(from_python(source, name, dates=dates))
        except RecursionError:
            raise ConfigError(Problem(name, "holds itself, or is nested too deeply", "key: value pairs")) from None
    data = load_yaml(Path(source), dates=dates)
    if not isinstance(data, dict):
        found = "is empty" if data is None else f"holds {show(data)}, which is not a mapping"
        raise ConfigError(Problem(str(source), found, "key: value pairs"))
    return data


def _typed(hyperparameters: dict[str, Any], model: dict[str, Any], storage_named: bool) -> Reading:
    """Both files' data as a typed configuration, with what the schema refuses left out."""
    data, slurm = dict(hyperparameters), hyperparameters.get("slurm")
    sections = [] if slurm is None else list(as_list(slurm))
    several = isinstance(slurm, list)
    names = [(section_name(each, place),) if several else () for place, each in enumerate(sections)]
    batch_problems = [Problem("slurm", "is an empty list", "at least one section")] if slurm == [] else []
    for position, section in enumerate(sections):
        if isinstance(section, dict) and isinstance(section.get("batch"), dict):
            options, mistakes = normalise(section["batch"], ("slurm", *names[position], "batch"))
            sections[position], batch_problems = {**section, "batch": options}, [*batch_problems, *mistakes]
    data["slurm"] = sections
    problems: list[Problem] = []
    refused: frozenset[str] = frozenset()
    try:
        file = HyperparameterFile.model_validate(data)
    except ValidationError as error:
        problems = [_problem(dict(detail), names) for detail in error.errors(include_url=False)]
        locations = [detail["loc"] for detail in error.errors(include_url=False)]
        # A mistake in one parameter does not refuse `parameters` as a whole.
        of_study = [at for at in locations if at[0] == "optuna" and (at[1:2] != ("parameters",) or len(at) == 2)]
        keys = {str(at[1]) for at in of_study if len(at) > 1}
        refused = frozenset(OptunaSection.model_fields if ("optuna",) in of_study else keys)
        file = HyperparameterFile.model_validate(_without(data, locations))
    space = SearchSpace.read(file.optuna.parameters, model)
    config = Config(file.log, file.slurm, file.optuna, model, hyperparameters, space, storage_named)
    return Reading(config, refused, (*problems, *batch_problems))


def _without(data: Mapping[str, Any], refused: Iterable[Location]) -> dict[str, Any]:
    """A copy without the keys at these locations, and with stand-ins for those that must be there.

    A key of a section goes as a whole; of the parameters, only the one with the mistake; a section of `slurm` that is
    no mapping leaves an empty one.
    """
    kept: dict[str, Any] = copy.deepcopy(dict(data))
    kept["slurm"] = [section if isinstance(section, dict) else {} for section in kept["slurm"]]
    for location in refused:
        if location[:1] == ("slurm",):
            section = kept["slurm"][int(location[1])]
            for key in [key for key in section if str(key) in map(str, location[2:3])]:
                del section[key]
            continue
        *above, last = location[: 4 if location[:2] == ("optuna", "parameters") else 2]
        container: Any = kept
        for segment in above:  # keys that are numbers are text in locations
            items = container.items() if isinstance(container, dict) else ()
            container = next((item for key, item in items if str(key) == str(segment)), None)
        for key in [key for key in container if str(key) == str(last)] if isinstance(container, dict) else ():
            del container[key]
    study = {"study_name": "study", "n_trials": 1, **kept.get("optuna", {})}
    for entry in study.get("parameters", {}).values():
        if entry.setdefault("type", REFUSED_TYPE) in PARAMETER_TYPES and "settings" not in entry:
            entry["type"] = REFUSED_TYPE
        entry.setdefault("settings", {})
    return {**kept, "optuna": study}


def _problem(detail: dict[str, Any], names: Sequence[tuple[str, ...]]) -> Problem:
    """`names` are what the sections of `slurm` are called in messages: nothing, where the file has no list."""
    location: Location = detail["loc"]
    where = key_path(*location)
    if location[:1] == ("slurm",) and len(location) > 1:
        where = key_path("slurm", *names[int(location[1])], *location[2:])
        location = ("slurm", *location[2:])
    kind, context = detail["type"], detail.get("ctx", {})
    if kind == "aimlhpo":
        return Problem(where, context["found"], context["legal"], context["suggestion"])
    section = _section(location[:-1])
    field_info = section.model_fields.get(str(location[-1])) if section else None
    description = field_info.description if field_info else None
    if kind == "missing":
        return Problem(where, "is missing", description)
    if kind == "extra_forbidden":
        known = _keys(section)
        return Problem(where, "unknown key", listing(known) or None, did_you_mean(location[-1], known))
    if kind in ("model_type", "model_attributes_type", "dict_type"):
        legal = listing(_keys(_section(location))) or "a mapping"
        return Problem(where, f"{show(detail['input'])} is not a mapping", legal)
    return Problem(where, f"{show(detail['input'])} is not legal here", description)


def _keys(section: type[BaseModel] | None) -> list[str]:
    return [field.alias or name for name, field in section.model_fields.items()] if section else []


def _section(location: Location) -> type[BaseModel] | None:
    """The model that describes the mapping at `location`; parameters stand under keys of their own."""
    section: type[BaseModel] | None = HyperparameterFile
    above: str | int = ""
    for segment in location:
        if above != "parameters":
            field = section.model_fields.get(str(segment)) if section else None
            section = _model_in(field.annotation) if field else None
            above = segment
        else:
            above = ""
    return None if above == "parameters" else section


def _model_in(annotation: Any) -> type[BaseModel] | None:
    """The model inside an annotation like `Annotated[X, ...] | None` or `dict[str, X]`."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    found = (_model_in(argument) for argument in getattr(annotation, "__args__", ()))
    return next((model for model in found if model), None)
