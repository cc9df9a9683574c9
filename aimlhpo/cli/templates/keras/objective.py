"""One trial trains the model once, with the values in `conf` that this trial tries.

To tune your own code, replace `load_data` and `build_model`, or the whole of `train`. Modules beside this file can be
imported as usual, and what is printed is in the worker's log.
"""

import os

os.environ.setdefault("KERAS_BACKEND", "tensorflow")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import keras
import numpy as np

from aimlhpo import BaseObjective
from aimlhpo.callbacks.keras import KerasPruningCallback


class Objective(BaseObjective):
    def train(self, trial, conf):
        """`conf` is model.yml with this trial's values in it; returns a dict that holds the metric."""
        keras.backend.clear_session()
        keras.utils.set_random_seed(conf["seed"])
        x, y, x_val, y_val = load_data()
        model = build_model(conf["model"])
        model.compile(
            keras.optimizers.Adam(conf["optimizer"]["learning_rate"]),
            loss="binary_crossentropy",
            metrics=["accuracy"],
        )
        callbacks = [
            keras.callbacks.BackupAndRestore(self.checkpoint_dir(trial)),  # an interrupted trial goes on from there
            KerasPruningCallback(trial, "val_loss"),  # reports each epoch, and ends trials that lag behind the others
        ]
        model.fit(x, y, validation_data=(x_val, y_val), callbacks=callbacks, verbose=2, **conf["trainer"])
        loss, accuracy = model.evaluate(x_val, y_val, verbose=0)
        return {"val_loss": loss, "val_accuracy": accuracy}


def load_data():
    """Made-up data of two classes: points inside and outside of a sphere in eight dimensions."""
    x = np.random.default_rng(0).standard_normal((1000, 8), dtype="float32")
    y = (np.square(x).sum(axis=1) > 7.3).astype("float32")
    return x[:750], y[:750], x[750:], y[750:]


def build_model(conf):
    model = keras.Sequential([keras.Input((8,))])
    for _ in range(conf["layers"]):
        model.add(keras.layers.Dense(conf["units"], activation="relu"))
        model.add(keras.layers.Dropout(conf["dropout"]))
    model.add(keras.layers.Dense(1, activation="sigmoid"))
    return model
