"""What the command line changes in the two YAML files: flags such as `--n-trials 50`, and `section:key=value`.

A path is a colon path into the hyperparameter YAML (`optuna:n_trials`) or the model YAML (`optimizer:learning_rate`);
dots may stand for colons, and `sampler` and `pruner` for keys of the `optuna` section. A plain value in the model YAML
is the value; a sweep such as `1,2` or `interval(0, 1)` makes a parameter of the search space. All of it works on the
plain data of the files, before anything is checked.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from aimlhpo.config.resolve import section_name
from aimlhpo.config.sbatch_options import long_name
from aimlhpo.config.sweep import Sweep
from aimlhpo.config.yaml import parse_yaml
from aimlhpo.errors import ConfigError, Problem, did_you_mean, key_path, listing
from aimlhpo.space.model_paths import SEARCH_MARK, exists, lookup, missing, nearest, substitute

SECTIONS = ("log", "slurm", "optuna")
DEFAULTS = {"sampler": "TPESampler", "pruner": "MedianPruner"}
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

    @property
    def parameters(self) -> dict[str, Any]:
        """The entries of `optuna: parameters`; an empty mapping where there are none."""
        optuna = self.hyperparameters.get("optuna")
        parameters = optuna.get("parameters") if isinstance(optuna, dict) else None
        return parameters if isinstance(parameters, dict) else {}


def apply(target: Overridden, overrides: Sequence[str], flags: Mapping[str, Any]) -> None:
    """Make the changes in `target`; flags win over `section:key=value`. Mistakes go to `target.problems`."""
    for override in overrides:
        try:
            _apply_override(target, override)
        except ConfigError as error:
            target.problems.extend(error.problems)
    for name, value in flags.items():
        if value is None:
            continue
        try:
            source = f"--{name.replace('_', '-')} {value}"
            if name in LIST_FLAGS and isinstance(value, str) and "," in value and not value.startswith("["):
                value = [part.strip() for part in value.split(",")]
            elif isinstance(value, str) and name not in TEXT_FLAGS:
                value = parse_yaml(value, key_path("optuna", name))
            _set_hyperparameter(target, "optuna", name, value, source)
        except ConfigError as error:
            target.problems.extend(error.problems)


def _apply_override(target: Overridden, override: str) -> None:
    path, equals, text = override.partition("=")
    if not equals or not path:
        legal = "section:key=value, for example optuna:n_trials=50 or optimizer:learning_rate=0.1"
        raise ConfigError(Problem(override, "is not an override", legal))
    path = _spelled(path, target)
    section, _, rest = path.partition(":")
    if section in SECTIONS:
        value, optuna = parse_yaml(text, override), target.hyperparameters.get("optuna")
        kind, colon, _ = rest.partition(":")
        if colon and kind in DEFAULTS and isinstance(optuna, dict):
            # An argument of the sampler or pruner: its class comes first, where the file names none.
            strategy = optuna.get(kind)
            if strategy is None or isinstance(strategy, str):
                optuna[kind] = {"type": strategy or DEFAULTS[kind]}
        _set_hyperparameter(target, section, rest, value, override)
        return
    sweep = Sweep(override, text).entry()
    value = None if sweep is not None else parse_yaml(text, override)
    if not exists(target.model, path) and (sweep is None or path not in target.parameters):
        suggestion = nearest(target.model, path)
        if suggestion is None and (near := did_you_mean(section, SECTIONS)):
            suggestion = f"{near}:{rest}" if rest else near
        legal = "a colon path into the model YAML, or log:..., slurm:..., optuna:..."
        problem = missing(target.model, path)
        raise ConfigError(Problem(problem.where, problem.found, legal, suggestion))
    if sweep is not None:
        _search(target, path, sweep)
    else:
        target.parameters.pop(path, None)  # a parameter of the same path is searched no more
        target.model = substitute(target.model, {path: value})


def _spelled(path: str, target: Overridden) -> str:
    """The colon path that a path means. What the model config has goes before all else."""
    colons = path.replace(".", ":")
    for candidate in (path, colons, colons.removeprefix("model:")):
        if exists(target.model, candidate):
            return candidate
    if path.partition(":")[0] in SECTIONS:
        return path
    if colons.partition(":")[0] in DEFAULTS:
        return f"optuna:{colons}"
    by_name = {_name(key, entry): key for key, entry in target.parameters.items()}
    return by_name.get(path, colons)


def _name(key: str, entry: Any) -> str:
    """The name in the study of the parameter with this entry."""
    settings = entry.get("settings") if isinstance(entry, Mapping) else None
    return str(settings.get("name", key)) if isinstance(settings, Mapping) else str(key)


def _search(target: Overridden, path: str, entry: Mapping[str, Any]) -> None:
    """Add a parameter, or replace the one there.

    What the other had besides type and settings stays: its name in the study, its dependency.
    """
    optuna = target.hyperparameters.setdefault("optuna", {})
    if not isinstance(optuna, dict) or not isinstance(optuna.setdefault("parameters", {}), dict):
        return
    holder = lookup(target.model, path) if exists(target.model, path) else None
    holder = holder if isinstance(holder, Mapping) else {}
    inner = holder.get(SEARCH_MARK)
    before = optuna["parameters"].get(path)
    if not isinstance(before, dict):
        inner = inner if isinstance(inner, Mapping) else {}
        before = {key: value for key, value in inner.items() if key == "dependency"}
    optuna["parameters"][path] = {**before, **entry, "settings": {"name": _name(path, before), **entry["settings"]}}
    if SEARCH_MARK in holder:
        target.model = substitute(target.model, {path: None})


def _set_hyperparameter(target: Overridden, section: str, rest: str, value: Any, source: str) -> None:
    """Set the key at a path below a section; mappings on the way are made where there are none yet."""
    segments = _segments(target.hyperparameters, section, rest)
    container: Any = target.hyperparameters
    for index, segment in enumerate(segments[:-1]):
        where = key_path(*segments[: index + 1])
        inner = _step(container, segment)
        if inner is None or inner is True:
            inner = {}
            _put(container, segment, inner, where, source)
        if not isinstance(inner, dict | list):
            found = "holds a single value, and no keys"
            raise ConfigError(Problem(f"{where} (from {source})", found, f"{where} itself"))
        container = inner
    *above, key = segments
    if isinstance(container, dict):
        for other in [name for name in container if name != key and _same(above, str(name), key)]:
            del container[other]
    _put(container, key, value, key_path(*segments), source)
    # The key path that a problem of this key will have.
    told = ALIASES.get(key, key) if above == ["optuna"] else key
    target.sources[key_path(*above, told)] = source


def _segments(data: Mapping[str, Any], section: str, rest: str) -> list[str]:
    """Split a path where keys hold colons themselves: the longest key that exists is taken."""
    segments, value = [section], data.get(section)
    parts = rest.split(":") if rest else []
    while parts:
        known = value if isinstance(value, Mapping) else {}
        taken = next((n for n in range(len(parts), 0, -1) if ":".join(parts[:n]) in known), 1)
        if ":".join(parts[:taken]) not in known and segments == ["optuna", "parameters"]:
            # The key of a new parameter reaches to its own keys.
            taken = next((n for n, part in enumerate(parts) if n and part in PARAMETER_KEYS), len(parts))
        segment = ":".join(parts[:taken])
        if segments == ["slurm"] and isinstance(value, list) and (position := _position(value, segment)) is not None:
            segment = section_name(value[position], position)
        segments.append(segment)
        value = _step(value, segment)
        parts = parts[taken:]
    return segments


def _step(value: Any, key: str) -> Any:
    """What a mapping or list has at a key or position, or None."""
    if isinstance(value, list):
        position = _position(value, key)
        return None if position is None else value[position]
    return value.get(key) if isinstance(value, Mapping) else None


def _position(items: Sequence[Any], key: str) -> int | None:
    """Where a list has what is called so, as sections are, or what stands at that position; None: nowhere."""
    names = [section_name(item, position) for position, item in enumerate(items)]
    if key in names:
        return names.index(key)
    return int(key) if key.isdecimal() and int(key) < len(items) else None


def _put(container: Any, key: str, value: Any, where: str, source: str) -> None:
    if isinstance(container, dict):
        container[key] = value
        return
    is_section = where == f"slurm: {key}"  # which is in the file, or nowhere; other lists may become longer
    if (position := _position(container if is_section else [*container, None], key)) is not None:
        container[position : position + 1] = [value]
    else:
        found, legal = "is not a position in the list", f"a position from 0 to {len(container)}"
        if is_section:
            names = listing(section_name(item, position) for position, item in enumerate(container))
            found, legal = "slurm is a list, and has no such section", f"slurm:NAME:key=value, with one of {names}"
        raise ConfigError(Problem(f"{where} (from {source})", found, legal))


def _same(above: Sequence[str], one: str, other: str) -> bool:
    """Whether two keys are two names of one: `name` and `study_name`, `t` and `time`."""
    if list(above) == ["optuna"]:
        return ALIASES.get(one, one) == ALIASES.get(other, other)
    in_batch = above[:1] == ["slurm"] and above[-1:] == ["batch"]
    return in_batch and long_name(one) is not None and long_name(one) == long_name(other)
