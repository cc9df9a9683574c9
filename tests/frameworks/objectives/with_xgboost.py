import numpy
import xgboost
from optuna_integration import XGBoostPruningCallback
from sklearn.base import clone

from aimlhpo import BaseObjective


class Objective(BaseObjective):
    def train(self, trial, conf):
        x = numpy.random.default_rng(0).random((64, 2))
        callback = XGBoostPruningCallback(trial, "validation_0-rmse")
        model = clone(xgboost.XGBRegressor(n_estimators=3, callbacks=[callback]))
        model.fit(x, x[:, 0], eval_set=[(x, x[:, 0] + conf["model"]["x"])], verbose=False)
        return {"val_loss": model.evals_result()["validation_0"]["rmse"][-1]}
