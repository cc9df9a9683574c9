"""The tracking tools that a configuration asks for."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from aimlhpo.storage import STUDY_ATTR
from aimlhpo.tracking.mlflow import MlflowTarget, StudyEntry
from aimlhpo.tracking.run import Reader
from aimlhpo.tracking.target import Target
from aimlhpo.tracking.tensorboard import TensorboardTarget

if TYPE_CHECKING:
    import optuna

    from aimlhpo.config import Config


def make_targets(config: Config, study: optuna.Study) -> list[Target]:
    """A target for each tool; nothing is opened or imported yet."""
    reported = Reader(config).reported
    mlflow, tensorboard = config.log.mlflow, config.log.tensorboard
    targets: list[Target] = []
    if mlflow is not None:
        targets.append(MlflowTarget(mlflow.uri, mlflow.experiment, _entry(config, study), reported))
    if tensorboard is not None:
        targets.append(TensorboardTarget(Path(tensorboard.directory), reported))
    return targets


def _entry(config: Config, study: optuna.Study) -> StudyEntry:
    section = config.optuna
    parameters = {
        "sampler": section.sampler.type if section.sampler else "TPESampler",
        "pruner": section.pruner.type if section.pruner else "MedianPruner",
        "n_trials": section.n_trials,
        "seed": study.user_attrs[STUDY_ATTR]["seed"],
        "metric": section.metric,
        "direction": section.direction,
    }
    program = section.objective or section.command or ""
    tags = {"study": section.study_name, "save_path": section.save_path, "mlflow.source.name": program}
    return StudyEntry(study.user_attrs[STUDY_ATTR]["id"], section.study_name, parameters, tags)
