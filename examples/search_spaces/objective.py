"""Which settings fit a forest best to the digits; every kind of parameter that a search space can have."""

from sklearn.datasets import load_digits
from sklearn.ensemble import ExtraTreesClassifier
from sklearn.model_selection import train_test_split

from aimlhpo import BaseObjective

SPLIT = train_test_split(*load_digits(return_X_y=True), test_size=0.5, random_state=0)


class Objective(BaseObjective):
    def train(self, trial, conf):
        train_x, test_x, train_y, test_y = SPLIT
        forest = ExtraTreesClassifier(**conf["forest"], random_state=0).fit(train_x, train_y)
        return {"error": 1 - forest.score(test_x, test_y)}
