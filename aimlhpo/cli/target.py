"""From what a user names on the command line, a directory or a YAML file, to the study in it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from aimlhpo.errors import ConfigError, Problem
from aimlhpo.paths import StudyPaths

if TYPE_CHECKING:
    from aimlhpo.config import Config


def load_target(named: Path) -> Config:
    """The configuration that the study was last started with. Raises ConfigError where there is no study."""
    from aimlhpo.config import load_snapshot

    save_path = named if named.is_dir() else _save_path_of(named)
    paths = StudyPaths(save_path.absolute(), "")
    if not paths.hyperparameters.exists():
        found = f"{save_path} holds no study"
        legal = "a directory that `aimlhpo optimize` has written to (save_path), or the hyperparameter file"
        raise ConfigError(Problem(str(named), found, legal))
    return load_snapshot(paths)


def _save_path_of(file: Path) -> Path:
    from aimlhpo.config.yaml_loader import load_yaml

    content = load_yaml(file)
    places = (_key(content, "optuna", "save_path"), _key(content, "log", "save_path"))
    return Path(str(next((place for place in places if place), ".")))


def _key(content: Any, section: str, key: str) -> Any:
    below = content.get(section) if isinstance(content, dict) else None
    return below.get(key) if isinstance(below, dict) else None
