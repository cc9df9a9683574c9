"""A support vector classifier of digits, trained on as many rows as the model configuration says."""

import json

from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from sklearn.svm import SVC

from aimlhpo import BaseObjective


class Objective(BaseObjective):
    def train(self, trial, conf):
        train_x, valid_x, train_y, valid_y = train_test_split(*load_digits(return_X_y=True), random_state=0)
        rows = conf["data"]["rows"]
        classifier = SVC(**conf["classifier"]).fit(train_x[:rows], train_y[:rows])
        support = self.checkpoint_dir(trial) / "support.json"  # what is needed to predict, kept with the best trial
        support.write_text(json.dumps(classifier.support_.tolist()))
        return {"accuracy": classifier.score(valid_x, valid_y)}
