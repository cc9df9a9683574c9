from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import keras
import numpy as np
import optuna
import pytest

from aimlhpo.callbacks import KerasPruningCallback
from aimlhpo.objective.base import MissingMetric

Reported = Callable[[], dict[int, float]]


def fit(trial: optuna.Trial, target: float, epochs: int = 4, monitor: str = "val_loss", interval: int = 1) -> None:
    """A model that can only answer 0, so that its loss is the square of the target."""
    model = keras.Sequential([keras.Input((1,)), keras.layers.Rescaling(0.0)])
    model.compile(loss="mse")
    x, y = np.ones((4, 1)), np.full((4, 1), target)
    callback = KerasPruningCallback(trial, monitor, interval)
    model.fit(x, y, validation_data=(x, y), epochs=epochs, verbose=0, callbacks=[callback])


def test_it_reports_every_epoch(trial: optuna.Trial, reported: Reported) -> None:
    fit(trial, target=2.0)
    assert reported() == {0: 4.0, 1: 4.0, 2: 4.0, 3: 4.0}


def test_the_interval_is_kept(trial: optuna.Trial, reported: Reported) -> None:
    fit(trial, target=2.0, epochs=7, interval=3)
    assert reported() == {2: 4.0, 5: 4.0}


def test_a_lagging_trial_is_pruned(trial: optuna.Trial, reported: Reported) -> None:
    with pytest.raises(optuna.TrialPruned, match="step 1"):
        fit(trial, target=9.0, interval=2)
    assert reported() == {1: 81.0}


def test_a_metric_that_is_never_logged_is_told(trial: optuna.Trial) -> None:
    with pytest.raises(MissingMetric, match="val_los'.*val_loss"):
        fit(trial, target=1.0, monitor="val_los")


def test_importing_it_does_not_load_torch() -> None:
    code = "import sys, aimlhpo.callbacks.keras; print({'torch', 'lightning', 'optuna'} & set(sys.modules))"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "set()"


def test_the_checkpoint_of_the_last_epoch_is_there_when_the_trial_ends(
    trial: optuna.Trial, reported: Reported, tmp_path: Path
) -> None:
    """A trial that pauses goes on with the next epoch, wherever the checkpoint's callback stands."""
    x, y = np.ones((4, 1)), np.full((4, 1), 9.0)
    for epoch in range(2):
        model = keras.Sequential([keras.Input((1,)), keras.layers.Rescaling(0.0)])
        model.compile(loss="mse")
        callbacks = [KerasPruningCallback(trial, "val_loss"), keras.callbacks.BackupAndRestore(tmp_path)]
        with pytest.raises(optuna.TrialPruned, match=f"step {epoch}"):
            model.fit(x, y, validation_data=(x, y), epochs=3, verbose=0, callbacks=callbacks)
    assert reported() == {0: 81.0, 1: 81.0}


def test_a_trial_that_lags_in_its_last_epoch_is_pruned(trial: optuna.Trial) -> None:
    with pytest.raises(optuna.TrialPruned, match="step 0"):
        fit(trial, target=9.0, epochs=1)
