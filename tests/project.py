"""A user's folder with an objective and both YAML files, and the command run in it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from textwrap import dedent
from typing import Any

import optuna
import yaml

from aimlhpo.check.settings import load_config
from aimlhpo.config.schema import Config
from aimlhpo.storage.attributes import record_of
from aimlhpo.storage.open import open_storage

QUADRATIC = """
    from aimlhpo import BaseObjective

    class Objective(BaseObjective):
        def train(self, trial, conf):
            for step in range(3):
                trial.report((conf["model"]["x"] - 0.5) ** 2 + 1 / (1 + step), step)
            return {"val_loss": (conf["model"]["x"] - 0.5) ** 2, "x_seen": conf["model"]["x"]}
"""


class Project:
    """Files under `folder`; the study's results go to `folder/run`.

    `objective` is a text, or a file that is copied; `model` holds more keys of the model configuration.
    """

    def __init__(
        self,
        folder: Path,
        objective: str | Path = QUADRATIC,
        slurm: dict[str, Any] | list[dict[str, Any]] | None = None,
        model: dict[str, Any] | None = None,
        **optuna_keys: Any,
    ) -> None:
        self.folder = folder
        self.save_path = folder / "run"
        self.write_objective(objective)
        settings: dict[str, Any] = {
            "name": "s",
            "objective": str(folder / "objective.py"),
            "metric": "val_loss",
            "direction": "minimize",
            "n_trials": 8,
            "sampler": {"type": "RandomSampler"},
            "pruner": {"type": "NopPruner"},
            "parameters": {"model:x": {"type": "float", "settings": {"name": "x", "low": 0.0, "high": 1.0}}},
            **optuna_keys,
        }
        hyperparameters = {"log": {"save_path": str(self.save_path), "report": False}, "optuna": settings}
        if slurm is not None:
            hyperparameters["slurm"] = slurm
        self.hyperparameters = folder / "hyperparameters.yml"
        self.model = folder / "model.yml"
        self.hyperparameters.write_text(yaml.safe_dump(hyperparameters, sort_keys=False))
        self.model.write_text(yaml.safe_dump({"model": {"x": 0.9, "units": 4}, **(model or {})}))

    def write_objective(self, objective: str | Path) -> None:
        """Put another objective in the place of the one that is there."""
        text = objective.read_text() if isinstance(objective, Path) else dedent(objective)
        (self.folder / "objective.py").write_text(text)

    def command(self, *arguments: str, verb: str = "optimize") -> list[str]:
        return [sys.executable, "-m", "aimlhpo", verb, str(self.hyperparameters), str(self.model), *arguments]

    def run(
        self, *arguments: str, verb: str = "optimize", expect: int = 0, env: dict[str, str] | None = None
    ) -> subprocess.CompletedProcess[str]:
        """Run the command to its end, and hold its exit code against `expect`."""
        done = subprocess.run(
            self.command(*arguments, verb=verb),
            cwd=self.folder, env=env, capture_output=True, text=True, timeout=300, stdin=subprocess.DEVNULL,
        )  # fmt: skip
        assert done.returncode == expect, f"exit code {done.returncode}\n{done.stdout}\n{done.stderr}"
        return done

    def start(self, *arguments: str) -> subprocess.Popen[str]:
        """Start the command; the caller waits for it."""
        return subprocess.Popen(
            self.command(*arguments),
            cwd=self.folder, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, stdin=subprocess.DEVNULL,
        )  # fmt: skip

    @property
    def config(self) -> Config:
        return load_config(self.hyperparameters, self.model)

    def study(self) -> optuna.Study:
        config = self.config
        return optuna.load_study(study_name=config.optuna.study_name, storage=open_storage(config.optuna.storage))

    def states(self) -> dict[str, int]:
        """How many trials there are by state."""
        states = [trial.state.name for trial in self.study().trials]
        return {name: states.count(name) for name in sorted(set(states))}

    def records(self) -> list[dict[str, Any]]:
        """What aimlhpo kept with each trial."""
        return [json.loads(json.dumps(dict(record_of(trial)))) for trial in self.study().trials]
