"""Pruning callback for Keras 3."""

from __future__ import annotations

from typing import Any

import keras

from aimlhpo.callbacks import Monitor


class KerasPruningCallback(keras.callbacks.Callback):
    """Reports a metric at the end of every `interval`-th epoch, and ends the trial if the pruner has decided so.

    It ends the trial before the next epoch begins, so that the checkpoint of this one is written, wherever the
    callback that writes it stands in the list.

    Args:
        trial: the trial that `train` was given.
        monitor: the name of the metric in Keras's logs, such as "val_loss".
        interval: 1 reports every epoch, 5 the epochs 4, 9, 14 and so on, counted from 0.

    Raises optuna.TrialPruned out of `fit` when the trial is to end, MissingMetric at the end of the training when no
    epoch logged `monitor`, and ValueError when interval < 1.
    """

    def __init__(self, trial: Any, monitor: str, interval: int = 1) -> None:
        super().__init__()
        self._monitor = Monitor(trial, monitor, interval)

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        logs = logs or {}
        if self._monitor.is_due(logs, epoch) and self._monitor.report_and_ask(logs, epoch):
            self._monitor.ends_after = epoch

    def on_epoch_begin(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        self._monitor.end_trial()

    def on_train_end(self, logs: dict[str, Any] | None = None) -> None:
        self._monitor.end_training()
