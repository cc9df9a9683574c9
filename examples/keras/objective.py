"""Tune the tumour classifier: one trial trains it once."""

from tumours import train  # the training code, beside this file

from aimlhpo import BaseObjective
from aimlhpo.callbacks.keras import KerasPruningCallback


class Objective(BaseObjective):
    def __init__(self, config, metric="val_loss"):
        super().__init__(config, metric)

    def train(self, trial, conf):
        custom_updates(trial, conf)
        pruning = KerasPruningCallback(trial, self.metric, interval=2)
        return train(conf, self.checkpoint_dir(trial), callbacks=[pruning])


def custom_updates(trial, conf):
    """One activation for all layers."""
    activation = trial.suggest("activation")
    for layer in conf["layers"]:
        layer["activation"] = activation
