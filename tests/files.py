"""A pair of YAML files to load."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from textwrap import dedent
from typing import Any

import pytest

from aimlhpo.check.settings import load_config
from aimlhpo.config.schema import Config
from aimlhpo.errors import ConfigError, Problem

MODEL = """
    optimizer: {learning_rate: 0.1, weight_decay: 0.0}
    layers:
      - {units: 32}
      - {units: 16}
    epochs: 5
"""


class Files:
    """Both files in a folder, and what loading them gives."""

    def __init__(self, folder: Path) -> None:
        self.hyperparameters = folder / "hyperparameters.yml"
        self.model = folder / "model.yml"
        self.objective = folder / "objective.py"
        self.objective.write_text("")
        self.model.write_text(dedent(MODEL))

    def write(self, optuna: str = "", *, above: str = "", model: str | None = None) -> Files:
        """A small file that is right, with lines added to its `optuna` section and above it."""
        section = f"objective: {self.objective}\nn_trials: 4\nname: s\n" + dedent(optuna).strip("\n")
        indented = "\n".join(f"  {line}" for line in section.splitlines())
        self.hyperparameters.write_text(f"{dedent(above)}\noptuna:\n{indented}\n")
        if model is not None:
            self.model.write_text(dedent(model))
        return self

    def load(self, *overrides: str, flags: Mapping[str, Any] | None = None) -> Config:
        return load_config(self.hyperparameters, self.model, overrides, flags or {})

    def problems(self, overrides: Sequence[str] = (), flags: Mapping[str, Any] | None = None) -> dict[str, Problem]:
        """What loading finds wrong, by key path."""
        with pytest.raises(ConfigError) as caught:
            self.load(*overrides, flags=flags)
        return {problem.where: problem for problem in caught.value.problems}
