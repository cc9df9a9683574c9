"""A valley with its lowest point at x = 0.3, n = 7."""

from aimlhpo import BaseObjective


class Objective(BaseObjective):
    def train(self, trial, conf):
        point = conf["point"]
        return {"depth": (point["x"] - 0.3) ** 2 + 0.01 * (point["n"] - 7) ** 2}
