from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import optuna
import pytest
import torch
from lightning.pytorch.callbacks import ModelCheckpoint

from aimlhpo.callbacks import LightningPruningCallback
from aimlhpo.objective.base import MissingMetric

Reported = Callable[[], dict[int, float]]


class Constant(pl.LightningModule):
    """Its validation loss is what it is told."""

    def __init__(self, loss: float) -> None:
        super().__init__()
        self.loss = loss
        self.weight = torch.nn.Parameter(torch.zeros(1))

    def training_step(self, batch: Any, index: int) -> torch.Tensor:
        return self.weight.sum()

    def validation_step(self, batch: Any, index: int) -> None:
        self.log("val_loss", torch.tensor(self.loss))

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.1)


def fit(folder: Path, callback: LightningPruningCallback, loss: float, epochs: int = 3) -> None:
    data = torch.utils.data.DataLoader(torch.ones(2, 1))
    trainer = pl.Trainer(
        max_epochs=epochs,
        accelerator="cpu",
        callbacks=[callback],
        default_root_dir=folder,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.fit(Constant(loss), data, data)


def test_it_reports_every_epoch(trial: optuna.Trial, reported: Reported, tmp_path: Path) -> None:
    fit(tmp_path, LightningPruningCallback(trial, "val_loss"), 4.0)
    assert reported() == {0: 4.0, 1: 4.0, 2: 4.0}


def test_the_interval_is_kept(trial: optuna.Trial, reported: Reported, tmp_path: Path) -> None:
    fit(tmp_path, LightningPruningCallback(trial, "val_loss", interval=3), 4.0, epochs=7)
    assert reported() == {2: 4.0, 5: 4.0}


def test_a_lagging_trial_is_pruned(trial: optuna.Trial, tmp_path: Path) -> None:
    with pytest.raises(optuna.TrialPruned, match="step 1"):
        fit(tmp_path, LightningPruningCallback(trial, "val_loss", interval=2), 81.0)


def test_a_metric_that_is_never_logged_is_told(trial: optuna.Trial, tmp_path: Path) -> None:
    with pytest.raises(MissingMetric, match="val_los'.*val_loss"):
        fit(tmp_path, LightningPruningCallback(trial, "val_los"), 1.0)


def test_the_checkpoint_of_the_last_epoch_is_there_when_the_trial_ends(trial: optuna.Trial, tmp_path: Path) -> None:
    data = torch.utils.data.DataLoader(torch.ones(2, 1))
    callbacks = [LightningPruningCallback(trial, "val_loss"), ModelCheckpoint(tmp_path, filename="last")]
    trainer = pl.Trainer(
        max_epochs=3, accelerator="cpu", callbacks=callbacks, logger=False,
        enable_progress_bar=False, enable_model_summary=False,
    )  # fmt: skip
    with pytest.raises(optuna.TrialPruned, match="step 0"):
        trainer.fit(Constant(81.0), data, data)
    saved = torch.load(tmp_path / "last.ckpt", weights_only=False)
    assert saved["epoch"] == 0
    again = pl.Trainer(
        max_epochs=2, accelerator="cpu", logger=False, enable_checkpointing=False, enable_progress_bar=False,
        enable_model_summary=False, callbacks=[EpochsSeen(epochs := [])],
    )  # fmt: skip
    again.fit(Constant(81.0), data, data, ckpt_path=tmp_path / "last.ckpt")
    assert epochs == [1]


class EpochsSeen(pl.Callback):
    def __init__(self, epochs: list[int]) -> None:
        self.epochs = epochs

    def on_train_epoch_start(self, trainer: Any, pl_module: Any) -> None:
        self.epochs.append(trainer.current_epoch)
