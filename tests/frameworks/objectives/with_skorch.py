import numpy
import torch
from optuna_integration import SkorchPruningCallback
from skorch import NeuralNetRegressor

from aimlhpo import BaseObjective


class Objective(BaseObjective):
    def train(self, trial, conf):
        x = numpy.random.default_rng(0).random((20, 1), dtype=numpy.float32)
        net = NeuralNetRegressor(
            torch.nn.Linear,
            module__in_features=1,
            module__out_features=1,
            max_epochs=3,
            verbose=0,
            callbacks=[SkorchPruningCallback(trial, "valid_loss")],
        )
        net.fit(x, x + numpy.float32(conf["model"]["x"]))
        return {"val_loss": net.history[-1, "valid_loss"]}
