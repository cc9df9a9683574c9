"""Pruning callback for Lightning, under its new name (lightning) or its old one (pytorch_lightning)."""

from __future__ import annotations

from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from aimlhpo.callbacks import Monitor

if TYPE_CHECKING or find_spec("lightning"):
    from lightning.pytorch.callbacks import Callback
else:
    from pytorch_lightning.callbacks import Callback


class LightningPruningCallback(Callback):
    """Reports a metric after the validation of every `interval`-th epoch; ends the trial if the pruner has decided so.

    It ends the trial before the next epoch begins: Lightning writes its checkpoints after all other callbacks. With
    several ranks, rank 0 reports and all ranks act on its answer.

    Args:
        trial: the trial that `train` was given.
        monitor: the name that the module logs the metric under.
        interval: 1 reports every epoch, 5 the epochs 4, 9, 14 and so on, counted from 0.

    Raises optuna.TrialPruned out of `fit` when the trial is to end, MissingMetric at the end of the training when
    `monitor` was never logged, and ValueError when interval < 1.
    """

    def __init__(self, trial: Any, monitor: str, interval: int = 1) -> None:
        super().__init__()
        self._monitor = Monitor(trial, monitor, interval)

    def on_validation_end(self, trainer: Any, pl_module: Any) -> None:
        if trainer.sanity_checking or trainer.state.fn != "fit":  # before the first epoch, or on its own
            return
        logged, epoch = trainer.callback_metrics, trainer.current_epoch
        if not self._monitor.is_due(logged, epoch):
            return
        prune = trainer.is_global_zero and self._monitor.report_and_ask(logged, epoch)
        if trainer.world_size > 1:
            prune = trainer.strategy.broadcast(prune)
        if prune:
            self._monitor.ends_after = epoch

    def on_train_epoch_start(self, trainer: Any, pl_module: Any) -> None:
        self._monitor.end_trial()

    def on_fit_end(self, trainer: Any, pl_module: Any) -> None:
        self._monitor.end_training()
