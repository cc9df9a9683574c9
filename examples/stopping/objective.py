"""A support vector classifier of digits: two settings, and an accuracy that soon gets no better."""

from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from sklearn.svm import SVC

from aimlhpo import BaseObjective


class Objective(BaseObjective):
    def train(self, trial, conf):
        train_x, valid_x, train_y, valid_y = train_test_split(*load_digits(return_X_y=True), random_state=0)
        classifier = SVC(**conf["classifier"]).fit(train_x[:400], train_y[:400])
        return {"accuracy": classifier.score(valid_x, valid_y)}
