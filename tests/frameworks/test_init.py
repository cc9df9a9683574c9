"""The files that `aimlhpo init` writes: each set runs as it is, and goes on where it was interrupted."""

from __future__ import annotations

import csv
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from aimlhpo.cli.verbs.files import KINDS, write_files
from aimlhpo.config.yaml import load_yaml
from aimlhpo.objective.base import load_objective, make_objective

FEW_EPOCHS = {"sklearn": "epochs=4", "command": "optuna:seed=1", "lightning": "trainer:max_epochs=3"}


@pytest.mark.parametrize("kind", KINDS)
def test_the_files_run_as_they_are(kind: str, tmp_path: Path) -> None:
    write_files(kind, tmp_path)
    files, few = ["hyperparameters.yml", "model.yml"], FEW_EPOCHS.get(kind, "trainer:epochs=3")
    done = subprocess.run(
        [sys.executable, "-m", "aimlhpo", "optimize", *files, few, "--local", "1", "-t", "3"],
        cwd=tmp_path, env={**os.environ, "OMP_NUM_THREADS": "1"}, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "note: optuna: parameters" not in done.stderr  # nothing that the check would write in another way
    with (tmp_path / "runs/first/results.csv").open() as table:
        rows = [*csv.DictReader(table)]
    assert [row["state"] for row in rows] == ["COMPLETE"] * 3, rows
    model = load_yaml(tmp_path / "model.yml")
    assert load_yaml(tmp_path / "runs/first/best.yml").keys() == model.keys()


class Interrupted(Exception):
    """Ends an attempt at a trial."""


class Attempt:
    """An attempt at a trial that is interrupted when it has reported `last`."""

    def __init__(self, folder: Path, last: int | None = None) -> None:
        self.number, self.checkpoint_dir, self.last = 0, folder, last
        self.steps: list[int] = []

    def report(self, value: float, step: int) -> None:
        self.steps.append(step)
        if step == self.last:
            raise Interrupted

    def should_prune(self) -> bool:
        return False


@pytest.mark.parametrize(
    "kind", ["torch", "sklearn", *(pytest.param(kind, marks=pytest.mark.slow) for kind in ("keras", "lightning"))]
)
def test_an_interrupted_trial_goes_on(kind: str, tmp_path: Path) -> None:
    write_files(kind, tmp_path)
    conf = load_yaml(tmp_path / "model.yml")
    objective = make_objective(load_objective(tmp_path / "objective.py"), None, conf, "val_loss", "cpu")
    with pytest.raises(Interrupted):
        objective(first := Attempt(tmp_path / "checkpoint", last=2))
    value = objective(second := Attempt(tmp_path / "checkpoint"))
    assert first.steps == [0, 1, 2]
    # Lightning writes an epoch's checkpoint after the report, so that the last epoch is trained again.
    assert second.steps[0] == (2 if kind == "lightning" else 3)
    assert len(second.steps) > 3
    assert 0 < value < 2


def test_an_interrupted_program_goes_on(tmp_path: Path) -> None:
    write_files("command", tmp_path)
    environment = {**os.environ, "AIMLHPO_CHECKPOINT_DIR": str(tmp_path)}

    def epochs(number: int) -> list[int]:
        command = [sys.executable, str(tmp_path / "train.py"), "--epochs", str(number)]
        printed = subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout
        return [json.loads(line)["epoch"] for line in printed.splitlines()]

    assert epochs(3) == [0, 1, 2]
    assert epochs(5) == [3, 4]
