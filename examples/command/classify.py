"""Classify handwritten digits (8x8 pixels, shipped with scikit-learn). Knows nothing of aimlhpo:

    python examples/command/classify.py --learning_rate=0.1 --alpha=0.001 --average

Each epoch's result is a line of JSON on the standard output.
"""

import argparse
import json

import numpy as np
from sklearn.datasets import load_digits
from sklearn.linear_model import SGDClassifier
from sklearn.metrics import log_loss
from sklearn.model_selection import train_test_split


def parse():
    parser = argparse.ArgumentParser()
    parser.add_argument("--learning_rate", type=float, default=0.01)
    parser.add_argument("--alpha", type=float, default=0.0001, help="weight of the penalty")
    parser.add_argument("--penalty", choices=("l1", "l2"), default="l2")
    parser.add_argument("--average", action=argparse.BooleanOptionalAction, default=False)
    parser.add_argument("--epochs", type=int, default=15)
    return parser.parse_args()


def main():
    options = parse()
    pixels, labels = load_digits(return_X_y=True)
    x, x_val, y, y_val = train_test_split(pixels / 16, labels, test_size=0.25, random_state=0, stratify=labels)
    model = SGDClassifier(
        loss="log_loss",
        learning_rate="constant",
        eta0=options.learning_rate,
        alpha=options.alpha,
        penalty=options.penalty,
        average=options.average,
        random_state=0,
    )
    for epoch in range(options.epochs):
        model.partial_fit(x, y, classes=np.arange(10))
        loss = log_loss(y_val, model.predict_proba(x_val))
        accuracy = model.score(x_val, y_val)
        print(json.dumps({"epoch": epoch, "val_loss": loss, "val_accuracy": accuracy}), flush=True)


if __name__ == "__main__":
    main()
