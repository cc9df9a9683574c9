"""What sweeps and short spellings on the command line do to the two files.
What the command line changes in the two YAML files: flags, and `section:key=value`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from aimlhpo.config.sbatch_options import long_name
from aimlhpo.config.sweep import Sweep
from aimlhpo.config.yaml import parse_value
from aimlhpo.errors import ConfigError, Problem, did_you_mean, key_path
from aimlhpo.space.model_paths import SEARCH_MARK, exists, lookup, missing, nearest, substitute

DEFAULTS = {"sampler": "TPESampler", "pruner": "MedianPruner"}
SWEPT_SECTIONS = ("log", "slurm", "optuna")


def spelled(path: str, hyperparameters: Mapping[str, Any], model: Mapping[str, Any]) -> str:
    """The colon path that a path means: dots are colons, `sampler` and `pruner` are keys of the optuna section.

    What the model config has goes before all of these.
    """
    colons = path.replace(".", ":")
    for candidate in (path, colons, colons.removeprefix("model:")):
        if exists(model, candidate):
            return candidate
    if path.partition(":")[0] in SWEPT_SECTIONS:
        return path
    if colons.partition(":")[0] in DEFAULTS:
        return f"optuna:{colons}"
    by_name = {_name(key, entry): key for key, entry in _parameters(hyperparameters).items()}
    return by_name.get(path, colons)


def name_strategy(hyperparameters: Mapping[str, Any], rest: str) -> None:
    """Before an argument of the sampler or pruner is set: its class, where the file names none; in place."""
    kind, colon, _ = rest.partition(":")
    optuna = hyperparameters.get("optuna")
    if not colon or kind not in DEFAULTS or not isinstance(optuna, dict):
        return
    section = optuna.get(kind)
    if section is None or isinstance(section, str):
        optuna[kind] = {"type": section or DEFAULTS[kind]}


def is_searched(hyperparameters: Mapping[str, Any], path: str) -> bool:
    """Whether the hyperparameter YAML has a parameter of this key."""
    return path in _parameters(hyperparameters)


def search(
    hyperparameters: dict[str, Any], model: dict[str, Any], path: str, entry: Mapping[str, Any]
) -> dict[str, Any]:
    """Add a parameter or replace the one there, in place; returns the model config.

    What the other had besides type and settings stays: its name in the study, its dependency.
    """
    optuna = hyperparameters.setdefault("optuna", {})
    if not isinstance(optuna, dict) or not isinstance(optuna.setdefault("parameters", {}), dict):
        return model
    before = optuna["parameters"].get(path)
    before = before if isinstance(before, dict) else _inside(model, path)
    optuna["parameters"][path] = {**before, **entry, "settings": {"name": _name(path, before), **entry["settings"]}}
    is_object = exists(model, path) and _is_object(lookup(model, path))
    return substitute(model, {path: None}) if is_object else model


def fix(hyperparameters: Mapping[str, Any], path: str) -> None:
    """A plain value on the command line is the value: a parameter of the same path is searched no more; in place."""
    parameters = _parameters(hyperparameters)
    if isinstance(parameters, dict):
        parameters.pop(path, None)


def _parameters(hyperparameters: Mapping[str, Any]) -> Mapping[str, Any]:
    optuna = hyperparameters.get("optuna")
    parameters = optuna.get("parameters") if isinstance(optuna, Mapping) else None
    return parameters if isinstance(parameters, Mapping) else {}


def _name(key: str, entry: Any) -> str:
    settings = entry.get("settings") if isinstance(entry, Mapping) else None
    return str(settings.get("name", key)) if isinstance(settings, Mapping) else str(key)


def _is_object(value: Any) -> bool:
    return isinstance(value, Mapping) and SEARCH_MARK in value


def _inside(model: Mapping[str, Any], path: str) -> dict[str, Any]:
    """The dependency of a parameter inside the model config."""
    value = lookup(model, path) if exists(model, path) else None
    inner = value.get(SEARCH_MARK) if isinstance(value, Mapping) else None
    return {"dependency": inner["dependency"]} if isinstance(inner, Mapping) and "dependency" in inner else {}


SECTIONS = ("log", "slurm", "optuna")
PARAMETER_KEYS = ("type", "settings", "substitute", "dependency")
TEXT_FLAGS = ("name", "objective", "storage", "save_path")
LIST_FLAGS = ("direction", "metric")
ALIASES = {"name": "study_name"}


@dataclass
class Overridden:
    """Both files with the command line's changes, and where each change came from."""

    hyperparameters: dict[str, Any]
    model: dict[str, Any]
    sources: dict[str, str] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)


def apply(target: Overridden, overrides: Sequence[str], flags: Mapping[str, Any]) -> None:
    """Make the changes in `target`; flags win over `section:key=value`. Mistakes go to `target.problems`."""
    for override in overrides:
        try:
            _apply_one(target, override)
        except ConfigError as error:
            target.problems.extend(error.problems)
    for name, value in flags.items():
        if value is not None:
            _apply_flag(target, name, value)


def _apply_one(target: Overridden, override: str) -> None:
    path, equals, text = override.partition("=")
    if not equals or not path:
        legal = "section:key=value, for example optuna:n_trials=50 or optimizer:learning_rate=0.1"
        raise ConfigError(Problem(override, "is not an override", legal))
    path = spelled(path, target.hyperparameters, target.model)
    section, _, rest = path.partition(":")
    if section in SECTIONS:
        value = parse_value(text, override)
        name_strategy(target.hyperparameters, rest)
        _set_hyperparameter(target, section, rest, value, override)
    elif (entry := Sweep(override, text).entry()) is not None:
        if not is_searched(target.hyperparameters, path):
            _check_path(target, path)
        target.model = search(target.hyperparameters, target.model, path, entry)
    else:
        _set_model(target, path, parse_value(text, override))


def _set_model(target: Overridden, path: str, value: Any) -> None:
    _check_path(target, path)
    fix(target.hyperparameters, path)
    target.model = substitute(target.model, {path: value})


def _check_path(target: Overridden, path: str) -> None:
    if not exists(target.model, path):
        section, _, rest = path.partition(":")
        suggestion = nearest(target.model, path)
        if suggestion is None and (near := did_you_mean(section, SECTIONS)):
            suggestion = f"{near}:{rest}" if rest else near
        problem = missing(target.model, path)
        legal = "a colon path into the model YAML, or log:..., slurm:..., optuna:..."
        raise ConfigError(Problem(problem.where, problem.found, legal, suggestion))


def _set_hyperparameter(target: Overridden, section: str, rest: str, value: Any, override: str) -> None:
    segments = _segments(target.hyperparameters, section, rest)
    container: Any = target.hyperparameters
    for index, segment in enumerate(segments[:-1]):
        container = _inner(container, segment, key_path(*segments[: index + 1]), override)
    _assign(container, segments, value, override)
    target.sources[_where(segments)] = override


def _where(segments: Sequence[str]) -> str:
    """The key path that a problem of this key will have."""
    if len(segments) == 2 and segments[0] == "optuna":
        return key_path("optuna", ALIASES.get(segments[1], segments[1]))
    return key_path(*segments)


def _segments(data: Mapping[str, Any], section: str, rest: str) -> list[str]:
    """Split a path where keys hold colons themselves: the longest key that exists is taken."""
    segments, value = [section], data.get(section)
    parts = rest.split(":") if rest else []
    while parts:
        taken = _longest_key(value, parts) or _new_key(segments, parts)
        segments.append(":".join(parts[:taken]))
        value = _step(value, segments[-1])
        parts = parts[taken:]
    return segments


def _longest_key(value: Any, parts: Sequence[str]) -> int:
    if not isinstance(value, Mapping):
        return 0
    return next((n for n in range(len(parts), 0, -1) if ":".join(parts[:n]) in value), 0)


def _new_key(segments: Sequence[str], parts: Sequence[str]) -> int:
    """How many parts a key takes that does not exist yet: a parameter's reaches to its own keys."""
    if segments != ["optuna", "parameters"]:
        return 1
    return next((n for n, part in enumerate(parts) if n and part in PARAMETER_KEYS), len(parts))


def _step(value: Any, key: str) -> Any:
    if isinstance(value, list):
        return value[int(key)] if key.isdecimal() and int(key) < len(value) else None
    return value.get(key) if isinstance(value, Mapping) else None


def _inner(container: Any, key: str, where: str, override: str) -> Any:
    """The mapping or list below `key`, made where there is none yet."""
    value = _step(container, key)
    if value is None or value is True:
        value = {}
        _put(container, key, value, where, override)
    if not isinstance(value, dict | list):
        raise ConfigError(Problem(f"{where} (from {override})", "holds a single value, and no keys", f"{where} itself"))
    return value


def _put(container: Any, key: str, value: Any, where: str, override: str) -> None:
    if isinstance(container, dict):
        container[key] = value
    elif key.isdecimal() and int(key) <= len(container):
        container[int(key) : int(key) + 1] = [value]
    else:
        legal = f"a position from 0 to {len(container)}"
        raise ConfigError(Problem(f"{where} (from {override})", "is not a position in the list", legal))


def _assign(container: Any, segments: Sequence[str], value: Any, override: str) -> None:
    key = segments[-1]
    if isinstance(container, dict):
        for other in [name for name in container if _same(segments[:-1], str(name), key)]:
            del container[other]
    _put(container, key, value, key_path(*segments), override)


def _same(above: Sequence[str], one: str, other: str) -> bool:
    """Whether two keys are two names of one: `name` and `study_name`, `t` and `time`."""
    if one == other:
        return False
    if list(above) == ["optuna"]:
        return ALIASES.get(one, one) == ALIASES.get(other, other)
    return list(above) == ["slurm", "batch"] and long_name(one) is not None and long_name(one) == long_name(other)


def _apply_flag(target: Overridden, name: str, value: Any) -> None:
    try:
        _set_hyperparameter(target, "optuna", name, _flag_value(name, value), f"--{name.replace('_', '-')} {value}")
    except ConfigError as error:
        target.problems.extend(error.problems)


def _flag_value(name: str, value: Any) -> Any:
    if not isinstance(value, str) or name in TEXT_FLAGS:
        return value
    if name in LIST_FLAGS and "," in value and not value.startswith("["):
        return [part.strip() for part in value.split(",")]
    return parse_value(value, key_path("optuna", name))
