"""A user's folder with a program in place of an objective."""

from __future__ import annotations

from pathlib import Path
from textwrap import dedent
from typing import Any

import yaml

from tests.project import Project


class CommandProject(Project):
    """`train.py` in the folder is run by `command`."""

    def __init__(
        self, folder: Path, script: str, command: str = "{python} train.py {parameters}", **optuna_keys: Any
    ) -> None:
        super().__init__(folder, **optuna_keys)
        (folder / "train.py").write_text(dedent(script))
        settings = yaml.safe_load(self.hyperparameters.read_text())
        del settings["optuna"]["objective"]
        settings["optuna"]["command"] = command
        self.hyperparameters.write_text(yaml.safe_dump(settings, sort_keys=False))

    def log(self) -> str:
        """All that the workers wrote."""
        return "".join(path.read_text() for path in sorted((self.save_path / "logs").glob("worker-*")))
