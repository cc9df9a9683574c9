"""Train a classifier of breast tumours (569 cases with 30 measurements each, shipped with scikit-learn).

As a script it trains with each model configuration it is given and prints how good the result is:

    python examples/keras/tumours.py model.yml best.yml
"""

import json
import os
import sys
from pathlib import Path

os.environ.setdefault("KERAS_BACKEND", "tensorflow")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import keras
import yaml
from sklearn.datasets import load_breast_cancer
from sklearn.model_selection import train_test_split
from sklearn.preprocessing import StandardScaler


def train(conf, folder=None, callbacks=()):
    """Train with `conf`; return the results of the best epoch.

    `folder` keeps a checkpoint of the last epoch: a training that was interrupted goes on from there.
    """
    keras.backend.clear_session()
    keras.utils.set_random_seed(conf["seed"])
    splits = load_splits()
    checkpoint = Checkpoint(folder)
    model = checkpoint.load() or build_model(conf)
    model.fit(
        *splits["train"],
        validation_data=splits["val"],
        batch_size=conf["trainer"]["batch_size"],
        initial_epoch=len(checkpoint.history),
        epochs=conf["trainer"]["epochs"],
        callbacks=[checkpoint, *callbacks],
        verbose=0,
    )
    best = min(checkpoint.history, key=lambda results: results["val_loss"])
    test_loss, test_accuracy = model.evaluate(*splits["test"], verbose=0)
    return {**best, "test_loss": test_loss, "test_accuracy": test_accuracy, "epochs": len(checkpoint.history)}


def build_model(conf):
    model = keras.Sequential([keras.Input((30,))])
    for layer in conf["layers"]:
        model.add(keras.layers.Dense(layer["units"], activation=layer["activation"]))
        model.add(keras.layers.Dropout(conf["dropout"]))
    model.add(keras.layers.Dense(1, activation="sigmoid"))
    optimizer = keras.optimizers.get(conf["optimizer"]["name"])
    optimizer.learning_rate = conf["optimizer"]["learning_rate"]
    model.compile(optimizer, loss="binary_crossentropy", metrics=["accuracy"])
    return model


def load_splits():
    """60 % to train, 20 % to choose by (val), 20 % that no choice ever sees (test)."""
    x, y = load_breast_cancer(return_X_y=True)
    x_rest, x_test, y_rest, y_test = train_test_split(x, y, test_size=0.2, random_state=0, stratify=y)
    x_train, x_val, y_train, y_val = train_test_split(x_rest, y_rest, test_size=0.25, random_state=0, stratify=y_rest)
    scale = StandardScaler().fit(x_train).transform
    return {
        "train": (scale(x_train), y_train),
        "val": (scale(x_val), y_val),
        "test": (scale(x_test), y_test),
    }


class Checkpoint(keras.callbacks.Callback):
    """Keeps the model and the results of all epochs so far in a folder."""

    def __init__(self, folder):
        super().__init__()
        self.folder = Path(folder) if folder else None
        self.history = []

    def load(self):
        """The model after the last finished epoch; None when there is none."""
        saved = sorted(self.folder.glob("epoch-*.keras")) if self.folder else []
        if not saved:
            return None
        finished = int(saved[-1].stem.removeprefix("epoch-"))
        self.history = json.loads((self.folder / "history.json").read_text())[:finished]
        return keras.saving.load_model(saved[-1])

    def on_epoch_end(self, epoch, logs=None):
        self.history.append({name: float(value) for name, value in logs.items()})
        if self.folder:
            self.save(epoch + 1)

    def save(self, finished):
        """Written aside and renamed, so that an interruption never leaves half a checkpoint."""
        replace(self.folder / "history.json", lambda path: path.write_text(json.dumps(self.history)))
        replace(self.folder / f"epoch-{finished:04d}.keras", self.model.save)
        (self.folder / f"epoch-{finished - 1:04d}.keras").unlink(missing_ok=True)


def replace(path, write):
    aside = path.with_name(f"new-{path.name}")
    write(aside)
    os.replace(aside, path)


def main():
    for path in sys.argv[1:]:
        results = train(yaml.safe_load(Path(path).read_text()))
        print(f"{path}: " + ", ".join(f"{name} {value:.4g}" for name, value in results.items()))


if __name__ == "__main__":
    main()
