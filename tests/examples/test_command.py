"""The examples that are plain programs, as a user runs them from the top of the sources."""

from __future__ import annotations

import csv
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


def run(*command: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, *command], cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done


def optimize(file: str, save_path: Path, trials: int) -> list[dict[str, str]]:
    files = [f"examples/command/{file}", "examples/command/model.yml"]
    run("optimize.py", *files, "-s", str(save_path), "-t", str(trials), "--local", "2")
    with (save_path / "results.csv").open() as table:
        return list(csv.DictReader(table))


def test_plain_script(tmp_path: Path) -> None:
    rows = optimize("hyperparameters.yml", tmp_path, 6)
    assert len(rows) == 6
    best = min((row for row in rows if row["state"] == "COMPLETE"), key=lambda row: float(row["val_loss"]))
    options = [f"--{name}={best[name]}" for name in ("learning_rate", "alpha", "penalty")]
    options.append("--average" if best["average"] == "True" else "--no-average")
    last = run("examples/command/classify.py", *options).stdout.splitlines()[-1]
    assert json.loads(last)["val_loss"] == pytest.approx(float(best["val_loss"]))


def test_script_that_reports(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = optimize("network.yml", tmp_path, 4)
    assert len(rows) == 4
    best = min((row for row in rows if row["state"] == "COMPLETE"), key=lambda row: float(row["val_loss"]))
    monkeypatch.setenv("TMPDIR", str(tmp_path))  # outside of a study a script has a checkpoint directory there
    again = run("examples/command/network.py", str(tmp_path / "best.yml")).stdout.splitlines()[-1]
    assert again == f"epoch 14: val_loss {float(best['val_loss']):.4f}"
