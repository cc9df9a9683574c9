"""Pruning callback for Keras 3."""

from __future__ import annotations

from typing import Any

import keras

from aimlhpo.callbacks.decision import is_due, never_seen, prune, report_and_ask


class KerasPruningCallback(keras.callbacks.Callback):
    """Reports `monitor` at the end of every `interval`-th epoch; ends the trial if it lags, or pauses at a rung.

    It ends the trial before the next epoch begins, so that the checkpoint of this one is written, wherever the
    callback that writes it stands in the list. Raises optuna.TrialPruned when the pruner has decided so, and
    MissingMetric at the end of the training when no epoch logged `monitor`.
    """

    def __init__(self, trial: Any, monitor: str, interval: int = 1) -> None:
        super().__init__()
        is_due(0, interval)
        self._trial = trial
        self._monitor = monitor
        self._interval = interval
        self._seen: set[str] = set()
        self._ends_after: int | None = None

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        logs = logs or {}
        self._seen.update(logs)
        if self._monitor not in logs or not is_due(epoch, self._interval):
            return
        if report_and_ask(self._trial, logs[self._monitor], epoch):
            self._ends_after = epoch

    def on_epoch_begin(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        self._end_trial()

    def on_train_end(self, logs: dict[str, Any] | None = None) -> None:
        self._end_trial()
        if self._seen and self._monitor not in self._seen:
            raise never_seen(self._monitor, self._seen)

    def _end_trial(self) -> None:
        if self._ends_after is not None:
            prune(self._ends_after)
