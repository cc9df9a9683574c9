"""What can be known of the tracking tools before a trial runs; whether a server answers is no condition."""

from __future__ import annotations

from collections.abc import Iterator
from importlib.util import find_spec
from typing import TYPE_CHECKING

from aimlhpo.errors import Problem
from aimlhpo.storage.open import literal_password

if TYPE_CHECKING:
    from aimlhpo.config.schema import Config


def tracking_problems(config: Config) -> Iterator[Problem]:
    """Tools that are asked for and not installed, and passwords in plain text."""
    for tool in ("mlflow", "tensorboard"):
        if getattr(config.log, tool) is not None and not is_installed(tool):
            yield Problem(f"log: {tool}", f"{tool} is not installed", f"pip install 'aimlhpo[{tool}]'")
    if config.log.mlflow is not None and (safe := _safe_uri(config.log.mlflow.uri)):
        found = "the URL holds a password, which would end up in copies of the configuration"
        yield Problem("log: mlflow: uri", found, f"{safe}, and the password in the environment")


def is_installed(package: str) -> bool:
    """Whether the package can be imported; a directory that only has its name is none."""
    spec = find_spec(package)
    return spec is not None and spec.origin is not None


def _safe_uri(uri: str) -> str | None:
    return literal_password(uri) if "://" in uri else None
