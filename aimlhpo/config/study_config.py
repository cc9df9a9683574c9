"""The checked configuration of a study: what everything else reads."""

from __future__ import annotations

import copy
import os
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from aimlhpo.atomic import replace_file
from aimlhpo.config.schema import LogSection, OptunaSection, SlurmSection
from aimlhpo.config.tracking import resolve_tracking, tracking_problems
from aimlhpo.config.yaml_loader import dump_yaml
from aimlhpo.errors import ConfigError
from aimlhpo.paths import StudyPaths


@dataclass(frozen=True)
class Config:
    """Both YAML files, checked. Plain data: it can be pickled, and holds no secret that a file did not hold."""

    log: LogSection
    slurm: SlurmSection | None
    optuna: OptunaSection
    model: dict[str, Any]
    hyperparameters: dict[str, Any]
    storage_named: bool = field(default=True, compare=False)
    """False where no `storage` was given and the default was taken."""

    @property
    def paths(self) -> StudyPaths:
        """Where the study keeps its files."""
        return StudyPaths(Path(self.optuna.save_path), self.optuna.study_name)

    def conf(self) -> dict[str, Any]:
        """What objectives see before substitution: the model config, and the `optuna` section under "optuna"."""
        conf = copy.deepcopy(self.model)
        conf["optuna"] = copy.deepcopy(self.hyperparameters["optuna"])
        return conf

    def enqueued(self) -> list[dict[str, Any]]:
        """The trials of `enqueue`, by study name."""
        names = {key: parameter.name for key, parameter in self.optuna.parameters.items()}
        return [{names.get(key, key): value for key, value in entry.items()} for entry in self.optuna.enqueue]

    def write_snapshot(self) -> None:
        """Keep both files beside the study, for the user alone (mode 0600). Raises OSError."""
        os.makedirs(self.paths.snapshot, mode=0o700, exist_ok=True)
        replace_file(self.paths.hyperparameters, dump_yaml(self.hyperparameters), 0o600)
        replace_file(self.paths.model, dump_yaml(self.model), 0o600)


def with_tracking(config: Config, asked: Mapping[str, Any]) -> Config:
    """The same study, with tracking tools asked for as under `log`. Raises ConfigError."""
    log = config.hyperparameters.get("log")
    log = {**(log if isinstance(log, dict) else {}), **asked}
    problems = list(tracking_problems(log))
    if problems:
        raise ConfigError(problems)
    resolve_tracking(log, config.optuna.save_path, config.optuna.study_name)
    return replace(config, log=LogSection.model_validate(log))
