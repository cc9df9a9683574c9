"""From what a user names on the command line, a directory or a YAML file, to the study in it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from aimlhpo.errors import ConfigError, Problem
from aimlhpo.paths import StudyPaths

if TYPE_CHECKING:
    from aimlhpo.config import Config

_LEGAL = "a directory that `aimlhpo optimize` has written to (save_path), or the hyperparameter file"


def load_target(named: Path) -> Config:
    """The configuration that the study was last started with. Raises ConfigError where there is no study."""
    from aimlhpo.config import load_paths, load_snapshot

    if not named.exists():
        raise ConfigError(Problem(str(named), "there is no such file or directory", _LEGAL))
    paths = StudyPaths(named.absolute(), "") if named.is_dir() else load_paths(named)
    if not paths.hyperparameters.exists():
        found = f"{paths.save_path} holds no study"
        raise ConfigError(Problem(str(named), found, _LEGAL))
    return load_snapshot(paths)
