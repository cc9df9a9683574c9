"""A linear classifier of handwritten digits. Nothing here knows of MLflow or TensorBoard: aimlhpo tells them."""

from sklearn.datasets import load_digits
from sklearn.linear_model import SGDClassifier
from sklearn.metrics import log_loss
from sklearn.model_selection import train_test_split

from aimlhpo import BaseObjective
from aimlhpo.callbacks.torch import report_or_prune


class Objective(BaseObjective):
    def train(self, trial, conf):
        optimizer, seed = conf["optimizer"], conf["data"]["seed"]
        x, y = load_digits(return_X_y=True)
        x, x_val, y, y_val = train_test_split(x / 16, y, test_size=0.25, random_state=seed)
        classifier = SGDClassifier(
            loss="log_loss", learning_rate="constant", eta0=optimizer["learning_rate"],
            alpha=optimizer["alpha"], penalty=optimizer["penalty"], random_state=seed,
        )  # fmt: skip
        for epoch in range(conf["trainer"]["epochs"]):
            classifier.partial_fit(x, y, classes=range(10))
            loss = log_loss(y_val, classifier.predict_proba(x_val))
            report_or_prune(trial, loss, epoch)
        return {"val_loss": loss, "val_accuracy": classifier.score(x_val, y_val)}
