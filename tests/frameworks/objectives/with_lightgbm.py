import lightgbm
import numpy
from optuna_integration import LightGBMPruningCallback

from aimlhpo import BaseObjective


class Objective(BaseObjective):
    def train(self, trial, conf):
        x = numpy.random.default_rng(0).random((64, 2))
        train = lightgbm.Dataset(x, x[:, 0])
        valid = lightgbm.Dataset(x, x[:, 0] + conf["model"]["x"], reference=train)
        curves = {}
        lightgbm.train(
            {"objective": "regression", "metric": "l2", "min_data_in_leaf": 4, "verbose": -1},
            train,
            num_boost_round=3,
            valid_sets=[valid],
            callbacks=[LightGBMPruningCallback(trial, "l2"), lightgbm.record_evaluation(curves)],
        )
        return {"val_loss": curves["valid_0"]["l2"][-1]}
