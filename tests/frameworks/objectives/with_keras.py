import keras
import numpy
from optuna_integration import KerasPruningCallback, TFKerasPruningCallback

from aimlhpo import BaseObjective


class Objective(BaseObjective):
    def train(self, trial, conf):
        callback = TFKerasPruningCallback if trial.number > 1 else KerasPruningCallback
        x = numpy.random.default_rng(0).random((16, 2))
        model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
        model.compile("sgd", loss="mse")
        valid = (x, x[:, 0] + conf["model"]["x"])
        fitted = model.fit(
            x, x[:, 0], epochs=3, verbose=0, validation_data=valid, callbacks=[callback(trial, "val_loss")]
        )
        return {"val_loss": fitted.history["val_loss"][-1]}
