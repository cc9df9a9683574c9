"""The reports of studies that were really run, in a real browser, as wide as a laptop's and as a phone's."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from aimlhpo.cli.verbs.files import write_files
from tests.results.browser import browse
from tests.slurm.cluster import Cluster
from tests.slurm.study import OBJECTIVE, SlurmStudy

ROOT = Path(__file__).resolve().parents[2]
SECTIONS = {"best", "search", "parameters", "cost", "failures", "origin", "all"}
BAD = """
            if trial.number in (4, 5) and start == 0:
                raise ValueError("no such activation")
            if trial.number == 6:
                return {"val_loss": float("nan")}
"""


def run(*words: str | Path, folder: Path) -> None:
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "aimlhpo", *map(str, words)]
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr


def look(report: Path, folder: Path, *more: str) -> dict[str, Any]:
    """Every section is filled, every figure drawn, the table sorts, and nothing is wider than the window."""
    for width in (390, 1280):
        found = browse(report, folder, width)
        assert found["sections"].keys() == SECTIONS | set(more)
        assert [name for name, text in found["sections"].items() if len(text) < 15] == []
        assert found["drawn"] == found["figures"] > 5
        assert found["broken"] == found["cut"] == []
        assert found["ascending"] == sorted(found["ascending"])
        assert found["descending"] == sorted(found["descending"], reverse=True)
        assert found["too_wide"] <= 0
    return found


def test_digits_with_pruning(tmp_path: Path) -> None:
    write_files("sklearn", tmp_path)
    run("optimize", "hyperparameters.yml", "model.yml", "--local", "2", "optuna:pruning=strict", folder=tmp_path)
    found = look(tmp_path / "runs/first/report.html", tmp_path)
    assert "better than" in found["sections"]["best"]  # the model YAML's own values were the first trial
    assert "in pruned trials" in found["sections"]["cost"]
    assert "saved by pruning" in found["sections"]["cost"]
    assert found["sections"]["failures"] == "No trial has failed."


def test_two_metrics_with_constraints(tmp_path: Path) -> None:
    files = [f"examples/pareto/{name}.yml" for name in ("hyperparameters", "model")]
    run("optimize", *files, "--local", "2", "-s", tmp_path / "pareto", folder=ROOT)
    found = look(tmp_path / "pareto/report.html", tmp_path, "tradeoffs")
    assert "params_thousands <= 20" in found["sections"]["tradeoffs"]
    assert "of 30 complete trials" in found["sections"]["tradeoffs"]


def test_failures_and_interruptions_on_a_cluster(cluster: Cluster, tmp_path: Path) -> None:
    slurm = {"jobs": 2, "batch": {"gres": "gpu:2"}}
    objective = OBJECTIVE.replace("for epoch in range(start", BAD.lstrip() + "            for epoch in range(start", 1)
    parameters = {
        "model:x": {"type": "float", "settings": {"name": "x", "low": 0.0, "high": 1.0}},
        "model:units": {"type": "int", "settings": {"name": "units", "low": 1, "high": 8}},
    }
    study = SlurmStudy(tmp_path, cluster, slurm, {"STILL": 2}, objective, n_trials=14, parameters=parameters)
    study.submit()
    cluster.wait_for(lambda: study.stands_still(2))
    cluster.requeue(f"{study.array}_0")
    cluster.requeue(f"{study.array}_1")
    study.wait_for_end()
    study.verb("report")
    found = look(study.save_path / "report.html", tmp_path)
    failures = found["sections"]["failures"]
    assert "exception: ValueError2" in failures
    assert "no such activation" in failures
    assert len(found["filtered"]) == 3
    assert "GPU-hours" in found["sections"]["cost"]
