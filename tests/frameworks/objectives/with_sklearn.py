import operator

import numpy
import optuna
from joblib import Parallel, delayed
from sklearn.linear_model import Ridge, SGDRegressor
from sklearn.model_selection import KFold, cross_val_score

from aimlhpo import BaseObjective


class Objective(BaseObjective):
    """Reports a cross validation's folds out of joblib's processes, then the epochs of a loop."""

    def train(self, trial, conf):
        x = numpy.random.default_rng(0).random((64, 2))
        y = x[:, 0]
        folds = cross_val_score(Ridge(), x, y, cv=KFold(3), scoring="neg_mean_squared_error", n_jobs=2)
        Parallel(n_jobs=2)(delayed(operator.methodcaller("report", -s, step=i))(trial) for i, s in enumerate(folds))
        model = SGDRegressor()
        for epoch in range(3, 6):
            model.partial_fit(x, y)
            loss = ((model.predict(x) - y - conf["model"]["x"]) ** 2).mean()
            trial.report(loss, epoch)
            if trial.should_prune():
                raise optuna.TrialPruned
        return {"val_loss": loss}
