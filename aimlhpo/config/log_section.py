"""The `log:` section: where a study's files lie, and which tracking tools are told of its trials."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BeforeValidator, Field

from aimlhpo.config.values import Section, Text, illegal
from aimlhpo.suggestions import show


class MlflowSection(Section):
    """Where the study's trials appear in MLflow."""

    uri: Text = Field(
        default="",
        description="http(s)://SERVER, sqlite:///FILE, another database, or a directory; ${VARIABLE} is taken from the "
        "environment. Default: mlflow.db in save_path.",
    )
    experiment: Text = Field(default="", description="MLflow experiment of the study's runs. Default: the study_name.")


class TensorboardSection(Section):
    """Where the study's event files for TensorBoard lie."""

    directory: Text = Field(default="", description="Directory of the event files. Default: tensorboard in save_path.")


def _or_mapping(key: str, legal: str) -> BeforeValidator:
    """A section that is asked for by `true`, by the value of its first key, or in full."""

    def check(value: Any) -> Any:
        if value is None or value is False:
            return None
        if value is True:
            return {}
        if not isinstance(value, str | dict):
            raise illegal(f"{show(value)} is not a mapping", legal)
        return {key: value} if isinstance(value, str) else value

    return BeforeValidator(check)


class LogSection(Section):
    """Where logs and results are written."""

    save_path: Text | None = Field(
        default=None, description="Directory of the study's files, used where `optuna: save_path` is not given."
    )
    mlflow: Annotated[MlflowSection | None, _or_mapping("uri", "true, a URI, or uri: URI and experiment: NAME")] = (
        Field(default=None, description="Tell MLflow of every trial: true, a URI, or a mapping.")
    )
    tensorboard: Annotated[
        TensorboardSection | None, _or_mapping("directory", "true, a directory, or directory: DIRECTORY")
    ] = Field(default=None, description="Write every trial for TensorBoard: true, a directory, or a mapping.")
