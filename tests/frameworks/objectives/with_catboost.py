import numpy
from catboost import CatBoostRegressor
from optuna_integration import CatBoostPruningCallback

from aimlhpo import BaseObjective


class Objective(BaseObjective):
    def train(self, trial, conf):
        x = numpy.random.default_rng(0).random((64, 2))
        callback = CatBoostPruningCallback(trial, "RMSE")
        model = CatBoostRegressor(iterations=3, verbose=False, allow_writing_files=False)
        model.fit(x, x[:, 0], eval_set=(x, x[:, 0] + conf["model"]["x"]), callbacks=[callback])
        callback.check_pruned()
        return {"val_loss": model.get_evals_result()["validation"]["RMSE"][-1]}
