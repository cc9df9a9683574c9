"""Digits with a network of one random hidden layer: the wider, the more accurate, and the more it weighs."""

import numpy as np
from sklearn.datasets import load_digits

from aimlhpo import BaseObjective


class Objective(BaseObjective):
    def train(self, trial, conf):
        network = conf["network"]
        images, digits = load_digits(return_X_y=True)
        random = np.random.default_rng(0)
        inputs = random.normal(size=(images.shape[1], network["units"])) / 100
        hidden = np.maximum(images @ inputs, 0)
        train, test = slice(0, 1200), slice(1200, None)
        gram = hidden[train].T @ hidden[train] + network["ridge"] * np.eye(network["units"])
        outputs = np.linalg.solve(gram, hidden[train].T @ np.eye(10)[digits[train]])
        accuracy = ((hidden[test] @ outputs).argmax(axis=1) == digits[test]).mean()
        return {"accuracy": accuracy, "params_thousands": (inputs.size + outputs.size) / 1000}
