"""Returns at once, with the step that an earlier attempt has left in the checkpoint."""

from typing import Any

from aimlhpo import BaseObjective


class Objective(BaseObjective):
    def train(self, trial: Any, conf: dict[str, Any]) -> dict[str, float]:
        step, _ = (self.checkpoint_dir(trial) / "step").read_text().split()
        return {"val_loss": 1.0, "found": int(step)}
