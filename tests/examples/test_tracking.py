"""The example that appears in MLflow and TensorBoard."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.examples.test_studies import optimize, rows
from tests.tracking.event_files import EventFiles
from tests.tracking.mlflow_runs import settled


def test_tracking(tmp_path: Path) -> None:
    result = optimize("tracking", tmp_path, "--local", "2", f"log:mlflow={tmp_path / 'mlruns'}")
    assert result.returncode == 0, result.stderr
    trials = rows(tmp_path)
    found = settled(str(tmp_path / "mlruns"))
    assert len(trials) == len(found.trials) == 10
    for trial in trials:
        number = int(trial["number"])
        curve = found.history(number, "reports/val_loss")
        assert found.trials[number].data.params["penalty"] == trial["penalty"]
        files = EventFiles(tmp_path / "tensorboard" / f"trial-{number:05d}")
        assert files.hparams()["penalty"] == trial["penalty"]
        assert files.scalars()["reports/val_loss"] == [(step, pytest.approx(value)) for step, value in curve]
    complete = [trial for trial in trials if trial["state"] == "COMPLETE"]
    best = min(float(trial["val_loss"]) for trial in complete)
    assert found.parents[0].data.metrics["best/val_loss"] == pytest.approx(best)
