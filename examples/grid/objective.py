"""A classifier of nearest neighbours: few settings, all of whose combinations are run."""

from sklearn.datasets import load_wine
from sklearn.model_selection import cross_val_score
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from aimlhpo import BaseObjective


class Objective(BaseObjective):
    def train(self, trial, conf):
        classifier = make_pipeline(StandardScaler(), KNeighborsClassifier(**conf["neighbours"]))
        return {"accuracy": cross_val_score(classifier, *load_wine(return_X_y=True), cv=3).mean()}
