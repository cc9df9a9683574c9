"""The hyperparameter YAML: every section with its keys. The models here hold checked values and no logic."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BeforeValidator, Field

from aimlhpo.config.log_section import LogSection, MlflowSection, TensorboardSection
from aimlhpo.config.optuna_section import OptunaSection
from aimlhpo.config.parameter_section import ParameterSection
from aimlhpo.config.slurm_section import SlurmSection
from aimlhpo.config.strategy_section import PrunerSection, StrategySection
from aimlhpo.config.values import Section, illegal
from aimlhpo.suggestions import show

__all__ = [
    "HyperparameterFile",
    "LogSection",
    "MlflowSection",
    "OptunaSection",
    "ParameterSection",
    "PrunerSection",
    "SlurmSection",
    "StrategySection",
    "TensorboardSection",
]


def _log(value: Any) -> Any:
    if value is True or value is None:
        return {}
    if not isinstance(value, dict):
        raise illegal(f"{show(value)} is not a mapping", "true, or save_path: DIRECTORY")
    return value


class HyperparameterFile(Section):
    """The whole file."""

    log: Annotated[LogSection, BeforeValidator(_log)] = Field(
        default_factory=LogSection, description="Where logs and results are written; `true` for the defaults."
    )
    slurm: SlurmSection | None = Field(
        default=None, description="The jobs that run the study on a SLURM cluster; without it the study runs here."
    )
    optuna: OptunaSection = Field(description="The study: its storage, budget, strategies and search space.")
