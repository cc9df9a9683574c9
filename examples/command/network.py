"""The same digits with a small network, configured by a YAML file; runs with and without aimlhpo:

python examples/command/network.py examples/command/model.yml
"""

import os
import sys

import joblib
import numpy as np
import yaml
from sklearn.datasets import load_digits
from sklearn.metrics import log_loss
from sklearn.model_selection import train_test_split
from sklearn.neural_network import MLPClassifier

import aimlhpo


def main():
    with open(sys.argv[1]) as file:
        conf = yaml.safe_load(file)
    pixels, labels = load_digits(return_X_y=True)
    x, x_val, y, y_val = train_test_split(pixels / 16, labels, test_size=0.25, random_state=0, stratify=labels)
    folder = aimlhpo.checkpoint_dir()
    begin, model = load(folder) or (0, build(conf))
    for epoch in range(begin, conf["epochs"]):
        model.partial_fit(x, y, classes=np.arange(10))
        save(folder, epoch + 1, model)
        loss = log_loss(y_val, model.predict_proba(x_val))
        print(f"epoch {epoch}: val_loss {loss:.4f}")
        aimlhpo.report(epoch=epoch, val_loss=loss, val_accuracy=model.score(x_val, y_val))


def build(conf):
    return MLPClassifier(
        hidden_layer_sizes=conf["layers"],
        learning_rate_init=conf["optimizer"]["learning_rate"],
        alpha=conf["optimizer"]["alpha"],
        random_state=0,
    )


def load(folder):
    """The next epoch and the model, where an earlier attempt at this trial has left them."""
    path = folder / "state.joblib"
    return joblib.load(path) if path.exists() else None


def save(folder, epoch, model):
    """Written aside and renamed, so that an interruption never leaves half a checkpoint."""
    joblib.dump((epoch, model), folder / "state.new")
    os.replace(folder / "state.new", folder / "state.joblib")


if __name__ == "__main__":
    main()
