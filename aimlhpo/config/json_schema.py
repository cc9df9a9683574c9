"""The schema for editors (JSON schema) and for people (a table of every key)."""

from __future__ import annotations

from typing import Any

from aimlhpo.config.schema import HyperparameterFile


def json_schema() -> dict[str, Any]:
    """JSON schema of the hyperparameter YAML."""
    return HyperparameterFile.model_json_schema()
