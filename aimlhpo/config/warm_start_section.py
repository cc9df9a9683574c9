"""`warm_start_from`: another study, by its directory or by its name."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from typing import Annotated, Any

from pydantic import BeforeValidator, Field

from aimlhpo.config.locations import absolute, resolve_storage, storage_problems
from aimlhpo.config.values import Section, Text, illegal
from aimlhpo.errors import Problem
from aimlhpo.suggestions import key_path, show

_LEGAL = "a study's save_path or hyperparameter file; or study_name: NAME, and storage: URL where it is another one"


class WarmStartSection(Section):
    """Another study."""

    path: Text | None = Field(default=None, description="The study's save_path, or its hyperparameter file.")
    study_name: Text | None = Field(default=None, description="Name of the study.")
    storage: Text | None = Field(default=None, description="Its storage. Default: the one of this study.")


def _warm_start(value: Any) -> Any:
    if isinstance(value, dict):
        named = value.get("study_name") is not None or value.get("path") is not None
        if not named and set(value) <= set(WarmStartSection.model_fields):
            raise illegal("names no study", _LEGAL)
        return value
    if not isinstance(value, str):
        raise illegal(f"{show(value)} is not a study", _LEGAL)
    return {"path": value}


WarmStart = Annotated[WarmStartSection, BeforeValidator(_warm_start)]


def resolve_warm_start(optuna: dict[str, Any]) -> None:
    """Make its place absolute, so that a later start from another directory finds the same study."""
    value = optuna.get("warm_start_from")
    if isinstance(value, str) and value.strip() and "\0" not in value:
        optuna["warm_start_from"] = absolute(value)
    elif isinstance(value, dict):
        storage, name, path = (value.get(key) for key in ("storage", "study_name", "path"))
        if isinstance(path, str) and path.strip():
            value["path"] = absolute(path)
        if isinstance(storage, str) and isinstance(name, str):
            value["storage"] = resolve_storage(storage, os.getcwd(), name)


def warm_start_problems(optuna: Mapping[str, Any]) -> Iterator[Problem]:
    """What is wrong with the place of the other study as it is written."""
    named = optuna.get("warm_start_from")
    if not isinstance(named, Mapping):
        return
    where = key_path("optuna", "warm_start_from")
    if named.get("path") is not None and (named.get("study_name") is not None or named.get("storage") is not None):
        yield Problem(where, "has a path, and a study_name or storage beside it", "one of the two ways")
    for problem in storage_problems(named.get("storage")):
        yield Problem(key_path(where, "storage"), problem.found, problem.legal, problem.suggestion)
