"""A parabola: what is searched stands on the command line (see docs/search-space.md)."""

from aimlhpo import BaseObjective


class Objective(BaseObjective):
    def train(self, trial, conf):
        point = conf["point"]
        return {"height": (point["x"] - 0.3) ** 2 + (point["y"] - 2) ** 2 + {"low": 0, "high": 1}[point["ground"]]}
