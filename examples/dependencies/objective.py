"""Gradient descent in a valley, with or without momentum: some parameters matter in some trials only."""

from aimlhpo import BaseObjective


class Objective(BaseObjective):
    def train(self, trial, conf):
        optimizer = conf["optimizer"]
        x, speed = 1.0, 0.0
        for _ in range(conf["steps"]):
            speed = optimizer.get("momentum", 0.0) * speed - optimizer["learning_rate"] * 2 * x
            x += speed
        return {"loss": x * x, "momentum_used": int("momentum" in optimizer), "width": conf["width"]}
