"""Tune the digits classifier: one trial trains it once."""

from digits import train  # the training code, beside this file

from aimlhpo import BaseObjective
from aimlhpo.callbacks.torch import report_or_prune


class Objective(BaseObjective):
    def __init__(self, study, config, metric="val_loss", device="cpu"):
        super().__init__(study, config, metric, device)

    def train(self, trial, conf):
        custom_updates(trial, conf)

        def after_epoch(epoch, results):
            report_or_prune(trial, results[self.metric], step=epoch)

        return train(conf, self.device, self.checkpoint_dir(trial), after_epoch)


def custom_updates(trial, conf):
    """What a single value in model.yml cannot say: several layers from a number and a width."""
    num_dense = trial.suggest("num_dense")
    width = trial.suggest("dense_width")
    conf["model"]["dense_hidden_dims"] = [width] * num_dense
