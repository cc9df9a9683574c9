"""Trials of many short steps; each step reports, and notes its number and the worker's process in the checkpoint."""

import os
import time
from typing import Any

from aimlhpo import BaseObjective


class Objective(BaseObjective):
    """Trains for `steps` steps, where the model configuration has them."""

    def train(self, trial: Any, conf: dict[str, Any]) -> dict[str, float]:
        state = self.checkpoint_dir(trial) / "step"
        for step in range(conf.get("steps", 1000)):
            trial.report(1.0, step)
            state.with_suffix(".new").write_text(f"{step} {os.getpid()}")
            os.replace(state.with_suffix(".new"), state)
            time.sleep(0.05)
        return {"val_loss": 1.0}
