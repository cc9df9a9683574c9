"""The configuration of a study: schema, loading, overrides. Importing it loads no framework."""

from __future__ import annotations

from aimlhpo.config.load import load_paths, load_snapshot, read_config
from aimlhpo.config.optuna_section import OptunaSection, ParameterSection, StrategySection
from aimlhpo.config.schema import Config, LogSection, MlflowSection, SlurmSection, TensorboardSection

__all__ = [
    "Config",
    "LogSection",
    "MlflowSection",
    "OptunaSection",
    "ParameterSection",
    "SlurmSection",
    "StrategySection",
    "TensorboardSection",
    "load_paths",
    "load_snapshot",
    "read_config",
]
