"""One trial trains the model once, with the values in `conf` that this trial tries.

To tune your own code, replace `load_data` and the model. Modules beside this file can be imported as usual, and what is
printed is in the worker's log. A model without `partial_fit` is trained by one `fit`: without reports there is no
pruning, and hyperparameters.yml needs no pruner.
"""

import os

import joblib
import numpy as np
from sklearn.datasets import load_digits
from sklearn.metrics import log_loss
from sklearn.model_selection import train_test_split
from sklearn.neural_network import MLPClassifier

from aimlhpo import BaseObjective
from aimlhpo.callbacks import report_or_prune


class Objective(BaseObjective):
    def train(self, trial, conf):
        """`conf` is model.yml with this trial's values in it; returns a dict that holds the metric."""
        x, x_val, y, y_val = load_data()
        checkpoint = self.checkpoint_dir(trial) / "checkpoint.joblib"  # an interrupted trial finds it there
        first_epoch, model = joblib.load(checkpoint) if checkpoint.exists() else (0, MLPClassifier(**conf["model"]))
        for epoch in range(first_epoch, conf["epochs"]):
            model.partial_fit(x, y, classes=np.unique(y))
            # Written under another name and then renamed, so that an interruption never leaves half a checkpoint.
            joblib.dump((epoch + 1, model), checkpoint.with_suffix(".new"))
            os.replace(checkpoint.with_suffix(".new"), checkpoint)
            report_or_prune(trial, log_loss(y_val, model.predict_proba(x_val)), step=epoch)
        loss = log_loss(y_val, model.predict_proba(x_val))
        return {"val_loss": loss, "val_accuracy": model.score(x_val, y_val)}


def load_data():
    """Handwritten digits of 8x8 pixels, which come with scikit-learn."""
    pixels, labels = load_digits(return_X_y=True)
    return train_test_split(pixels / 16, labels, test_size=0.25, random_state=0, stratify=labels)
