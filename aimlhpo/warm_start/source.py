"""The study that trials are taken over from."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import optuna

from aimlhpo.errors import ConfigError, Problem
from aimlhpo.storage_probe import holds_studies, literal_password
from aimlhpo.suggestions import did_you_mean, key_path, listing

if TYPE_CHECKING:
    from aimlhpo.config import Config

WHERE = key_path("optuna", "warm_start_from")
_LEGAL = "a study's save_path or hyperparameter file; or study_name: NAME, and storage: URL where it is another one"
_SAME = "a study with the same metrics and directions"


@dataclass(frozen=True)
class Source:
    """Another study; `place` is its name and storage in one, to know it again."""

    study: optuna.Study
    storage: str

    @property
    def name(self) -> str:
        return self.study.study_name

    @property
    def place(self) -> str:
        return place_of(self.storage, self.name)


def place_of(storage: str, name: str) -> str:
    return f"{storage} {name}"


def named_source(config: Config) -> tuple[str, str]:
    """Storage and name of the study that `warm_start_from` names. Raises ConfigError."""
    named = config.optuna.warm_start_from
    if named is None:
        raise ValueError("the configuration names no study")
    if named.path is not None:
        return _in_directory(Path(named.path))
    return named.storage or config.optuna.storage, named.study_name or ""


def _in_directory(path: Path) -> tuple[str, str]:
    """What a save_path, or the one of a hyperparameter file, was last used with."""
    from aimlhpo.config import load_paths, load_snapshot
    from aimlhpo.paths import StudyPaths

    if not path.exists():
        raise ConfigError(Problem(WHERE, f"no such file or directory: {path}", _LEGAL))
    paths = StudyPaths(path, "") if path.is_dir() else load_paths(path)
    if not paths.hyperparameters.exists():
        raise ConfigError(Problem(WHERE, f"no study was started in {paths.save_path}", _LEGAL))
    known = load_snapshot(paths)
    return known.optuna.storage, known.optuna.study_name


def find_source(config: Config) -> Source:
    """Open the other study. Raises ConfigError where it is not there or measures something else, StorageError."""
    storage, name = named_source(config)
    if (storage, name) == (config.optuna.storage, config.optuna.study_name):
        raise ConfigError(Problem(WHERE, "is the study itself", "another study"))
    source = Source(_load(storage, name), storage)
    problems = _mismatches(source, config)
    if problems:
        raise ConfigError(problems)
    return source


def _load(storage: str, name: str) -> optuna.Study:
    from aimlhpo.storage import open_storage

    safe = literal_password(storage)
    if safe is not None:
        found = "the URL holds a password, which would end up in copies of the configuration"
        raise ConfigError(Problem(key_path(WHERE, "storage"), found, f"{safe}, and the password in the environment"))
    if not holds_studies(storage):
        raise ConfigError(Problem(WHERE, f"there is no storage {storage}", _LEGAL))
    opened = open_storage(storage)
    names = [study.study_name for study in opened.get_all_studies()]
    if name not in names:
        found = f"there is no study {name!r} in {storage}"
        raise ConfigError(Problem(WHERE, found, listing(names[:20]) or "a study", did_you_mean(name, names)))
    return optuna.load_study(study_name=name, storage=opened)


def _mismatches(source: Source, config: Config) -> list[Problem]:
    """Why the values of the other study say nothing about this one."""
    directions = [direction.name.lower() for direction in source.study.directions]
    wanted = config.optuna.direction
    if len(directions) != len(wanted):
        found = f"study {source.name!r} has {len(directions)} metrics, and this one has {len(wanted)}"
        return [Problem(WHERE, found, _SAME)]
    problems = []
    if directions != wanted:
        found = f"study {source.name!r} is to {listing(directions)}, and this one to {listing(wanted)}"
        problems.append(Problem(WHERE, found, _SAME))
    metrics = source.study.metric_names
    if metrics and metrics != config.optuna.metric:
        found = f"study {source.name!r} measures {listing(metrics)}, and this one {listing(config.optuna.metric)}"
        problems.append(Problem(WHERE, found, _SAME))
    return problems
