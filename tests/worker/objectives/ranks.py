"""Each rank of a trial notes its process and its port, reports, and does what `at_the_end` in the model configuration
names; the files lie in `folder`."""

import os
import time
from pathlib import Path
from typing import Any

from aimlhpo import BaseObjective
from aimlhpo.objective.base import Pruned


class Objective(BaseObjective):
    def train(self, trial: Any, conf: dict[str, Any]) -> dict[str, Any] | None:
        rank, size = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
        seen = Path(conf["folder"], f"{trial.number}-{rank}")
        seen.write_text(f"{os.getpid()} {os.environ['MASTER_PORT']}")
        extra = trial.suggest_float("extra", 0.0, 1.0)
        for step in range(3):
            trial.report(float(trial.number + step), step)
            if trial.should_prune():
                seen.write_text(f"pruned at {step}")
                raise Pruned
        if conf.get("at_the_end") == "rank 2 fails":
            if (trial.number, rank) == (0, 2):
                raise ZeroDivisionError("division by zero")
            time.sleep(600 * (trial.number == 0))
        elif conf.get("at_the_end") == "rank 1 dies":
            others = [seen.with_name(f"{trial.number}-{other}") for other in range(size)]
            while not all(other.exists() and " " in other.read_text() for other in others):
                time.sleep(0.02)
            if (trial.number, rank) == (0, 1):
                os._exit(9)
            time.sleep(600 * (trial.number == 0))
        return {"val_loss": extra, "size": size} if rank == 0 else None
