"""One trial trains the model once, with the values in `conf` that this trial tries.

To tune your own code, import your LightningModule and your data in place of `Network` and `load_data`. Modules beside
this file can be imported as usual, and what is printed is in the worker's log.
"""

import lightning
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from aimlhpo import BaseObjective
from aimlhpo.callbacks.lightning import LightningPruningCallback


class Objective(BaseObjective):
    def train(self, trial, conf):
        """`conf` is model.yml with this trial's values in it; returns a dict that holds the metric."""
        lightning.seed_everything(conf["seed"])
        train, val = (DataLoader(data, conf["batch_size"], shuffle=i == 0) for i, data in enumerate(load_data()))
        network, folder = Network(conf), self.checkpoint_dir(trial)
        trainer = lightning.Trainer(
            **conf["trainer"],
            accelerator="cpu" if self.device == "cpu" else "gpu",
            devices=1,  # the worker's own
            logger=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            callbacks=[
                ModelCheckpoint(folder, save_last=True),
                LightningPruningCallback(trial, "val_loss"),  # reports each epoch, and ends trials that lag behind
            ],
        )
        last = folder / "last.ckpt"  # an interrupted trial goes on from there
        trainer.fit(network, train, val, ckpt_path=last if last.exists() else None)
        return trainer.validate(network, val, verbose=False)[0]


class Network(lightning.LightningModule):
    def __init__(self, conf):
        super().__init__()
        self.optimizer = conf["optimizer"]
        layers, width = [], 8
        for _ in range(conf["model"]["layers"]):
            layers += [nn.Linear(width, conf["model"]["units"]), nn.ReLU(), nn.Dropout(conf["model"]["dropout"])]
            width = conf["model"]["units"]
        self.layers = nn.Sequential(*layers, nn.Linear(width, 2))

    def training_step(self, batch, index):
        x, y = batch
        return nn.functional.cross_entropy(self.layers(x), y)

    def validation_step(self, batch, index):
        x, y = batch
        logits = self.layers(x)
        self.log("val_loss", nn.functional.cross_entropy(logits, y))
        self.log("val_accuracy", (logits.argmax(dim=1) == y).float().mean())

    def configure_optimizers(self):
        return torch.optim.AdamW(self.parameters(), **self.optimizer)


def load_data():
    """Made-up data of two classes, to train and to validate: points inside and outside of a sphere."""
    x = torch.randn(1000, 8, generator=torch.Generator().manual_seed(0))
    y = (x.square().sum(dim=1) > 7.3).long()
    return TensorDataset(x[:750], y[:750]), TensorDataset(x[750:], y[750:])
