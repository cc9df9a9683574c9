"""The configuration of a study: schema, loading, overrides. Importing it loads no framework."""

from __future__ import annotations

from aimlhpo.config.hints import hints
from aimlhpo.config.json_schema import json_schema, reference
from aimlhpo.config.load import load_config, load_paths, load_snapshot
from aimlhpo.config.schema import (
    LogSection,
    MlflowSection,
    OptunaSection,
    ParameterSection,
    SlurmSection,
    StrategySection,
    TensorboardSection,
)
from aimlhpo.config.study_config import Config

__all__ = [
    "Config",
    "LogSection",
    "MlflowSection",
    "OptunaSection",
    "ParameterSection",
    "SlurmSection",
    "StrategySection",
    "TensorboardSection",
    "hints",
    "json_schema",
    "load_config",
    "load_paths",
    "load_snapshot",
    "reference",
]
