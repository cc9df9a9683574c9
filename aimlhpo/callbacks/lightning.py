"""Pruning callback for Lightning, under its new name (lightning) or its old one (pytorch_lightning)."""

from __future__ import annotations

from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from aimlhpo.callbacks.decision import is_due, never_seen, prune, report_and_ask

if TYPE_CHECKING or find_spec("lightning"):
    from lightning.pytorch.callbacks import Callback
else:
    from pytorch_lightning.callbacks import Callback


class LightningPruningCallback(Callback):
    """Reports `monitor` after the validation of every `interval`-th epoch; ends the trial if it lags, or pauses.

    It ends the trial before the next epoch begins: Lightning writes its checkpoints after all other callbacks.
    With several ranks, rank 0 reports and all ranks act on its answer. Raises optuna.TrialPruned when the
    pruner has decided so, and MissingMetric at the end of the training when `monitor` was never logged.
    """

    def __init__(self, trial: Any, monitor: str, interval: int = 1) -> None:
        super().__init__()
        is_due(0, interval)
        self._trial = trial
        self._monitor = monitor
        self._interval = interval
        self._seen: set[str] = set()
        self._ends_after: int | None = None

    def on_validation_end(self, trainer: Any, pl_module: Any) -> None:
        if trainer.sanity_checking:  # Lightning validates once before the first epoch
            return
        metrics = trainer.callback_metrics
        self._seen.update(metrics)
        epoch = trainer.current_epoch
        if self._monitor in metrics and is_due(epoch, self._interval) and self._decide(trainer, epoch):
            self._ends_after = epoch

    def on_train_epoch_start(self, trainer: Any, pl_module: Any) -> None:
        self._end_trial()

    def _decide(self, trainer: Any, epoch: int) -> bool:
        answer = False
        if trainer.is_global_zero:
            answer = report_and_ask(self._trial, trainer.callback_metrics[self._monitor], epoch)
        return bool(trainer.strategy.broadcast(answer)) if trainer.world_size > 1 else answer

    def _end_trial(self) -> None:
        if self._ends_after is not None:
            prune(self._ends_after)

    def on_fit_end(self, trainer: Any, pl_module: Any) -> None:
        self._end_trial()
        if self._seen and self._monitor not in self._seen:
            raise never_seen(self._monitor, self._seen)
