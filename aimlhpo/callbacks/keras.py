"""Pruning callback for Keras 3."""

from __future__ import annotations

from typing import Any

import keras

from aimlhpo.callbacks.decision import Monitor


class KerasPruningCallback(keras.callbacks.Callback):
    """Reports `monitor` at the end of every `interval`-th epoch; ends the trial if it lags, or pauses at a rung.

    It ends the trial before the next epoch begins, so that the checkpoint of this one is written, wherever the
    callback that writes it stands in the list. Raises optuna.TrialPruned when the pruner has decided so, and
    MissingMetric at the end of the training when no epoch logged `monitor`.
    """

    def __init__(self, trial: Any, monitor: str, interval: int = 1) -> None:
        super().__init__()
        self._watched = Monitor(trial, monitor, interval)

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        logs = logs or {}
        if self._watched.is_due(logs, epoch) and self._watched.report_and_ask(logs, epoch):
            self._watched.ends_after = epoch

    def on_epoch_begin(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        self._watched.end_trial()

    def on_train_end(self, logs: dict[str, Any] | None = None) -> None:
        self._watched.end_training()
