"""Both examples as a user runs them: `python optimize.py hyperparameters.yml model.yml` from the top of the sources."""

from __future__ import annotations

import csv
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]


def run(*command: str) -> subprocess.CompletedProcess[str]:
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    environment["OMP_NUM_THREADS"] = "1"  # sums come out the same in every process
    return subprocess.run(
        [sys.executable, *command],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        stdin=subprocess.DEVNULL,
    )


def optimize(example: str, save_path: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    files = [f"examples/{example}/{name}.yml" for name in ("hyperparameters", "model")]
    return run("optimize.py", *files, "-s", str(save_path), "log:report=false", *arguments)


def rows(save_path: Path) -> list[dict[str, str]]:
    with (save_path / "results.csv").open() as table:
        return list(csv.DictReader(table))


def validation_losses(script: str, *models: Path) -> list[float]:
    """What the example's own script says about each model configuration, without aimlhpo."""
    result = run(script, *map(str, models))
    assert result.returncode == 0, result.stderr
    return [float(text) for text in re.findall(r"val_loss ([\d.e+-]+)", result.stdout)]


def test_torch(tmp_path: Path) -> None:
    result = optimize("torch", tmp_path, "--local", "2")
    assert result.returncode == 0, result.stderr
    trials = rows(tmp_path)
    assert sorted(int(trial["number"]) for trial in trials) == list(range(24))
    assert {trial["state"] for trial in trials} == {"COMPLETE", "PRUNED"}
    assert len({trial["worker"] for trial in trials}) == 2
    for column in ("learning_rate", "num_dense", "activation", "val_loss", "test_accuracy"):
        assert all(trial[column] for trial in trials if trial["state"] == "COMPLETE"), column

    best = yaml.safe_load((tmp_path / "best.yml").read_text())
    best_row = min((trial for trial in trials if trial["state"] == "COMPLETE"), key=lambda t: float(t["val_loss"]))
    layers = [int(best_row["dense_width"])] * int(best_row["num_dense"])
    assert best["model"]["dense_hidden_dims"] == layers
    start, tuned = validation_losses(
        "examples/torch/digits.py", ROOT / "examples/torch/model.yml", tmp_path / "best.yml"
    )
    assert tuned < start
    assert tuned == pytest.approx(float(best_row["val_loss"]), rel=1e-3)

    again = optimize("torch", tmp_path, "--local", "2", "-r", "1")
    assert again.returncode == 3
    assert rows(tmp_path) == trials


@pytest.mark.slow
def test_keras(tmp_path: Path) -> None:
    startup = "optuna:pruner:n_startup_trials=2"  # then trial 4 is pruned, whichever have ended before it
    result = optimize("keras", tmp_path, "--local", "2", "-t", "7", startup)
    assert result.returncode == 0, result.stderr
    trials = rows(tmp_path)
    assert len(trials) == 7
    assert {trial["state"] for trial in trials} == {"COMPLETE", "PRUNED"}
    best = yaml.safe_load((tmp_path / "best.yml").read_text())
    assert len({layer["activation"] for layer in best["layers"]}) == 1
    start, tuned = validation_losses(
        "examples/keras/tumours.py", ROOT / "examples/keras/model.yml", tmp_path / "best.yml"
    )
    assert tuned < start
