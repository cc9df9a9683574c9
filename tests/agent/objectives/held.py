"""Each trial says that it has begun, and ends when it may: at once where the file `end` is there, or its own.

The model configuration may ask for more: with `one_is_late` all workers but the first wait for the file `begin` before
they take a trial; with `needs_all` trial 0 runs out of memory when the file `full` is there, the first time it is run.
"""

import os
import time
from pathlib import Path
from typing import Any

from aimlhpo import BaseObjective

FOLDER = Path(__file__).parent


def wait_for(*files: str) -> None:
    while not any((FOLDER / file).exists() for file in files):
        time.sleep(0.01)


class Objective(BaseObjective):
    def __init__(self, *given: Any, **named: Any) -> None:
        super().__init__(*given, **named)
        if self.config.get("one_is_late"):
            try:
                (FOLDER / "first").mkdir()
            except FileExistsError:
                wait_for("begin")

    def train(self, trial: Any, conf: dict[str, Any]) -> dict[str, float]:
        (FOLDER / f"begun-{trial.number}").touch()
        if conf.get("needs_all") and trial.number == 0:
            run_out_of_memory_once(trial)
        wait_for(f"end-{trial.number}", "end")
        (FOLDER / f"ended-{trial.number}").touch()
        return {"val_loss": conf["model"]["x"]}


def run_out_of_memory_once(trial: Any) -> None:
    if trial.attempt == 1:
        wait_for("full")
    if not (FOLDER / "again").exists():
        (FOLDER / "again").write_text(str(os.getpid()))
        raise RuntimeError("CUDA out of memory")
