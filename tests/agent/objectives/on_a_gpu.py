"""Plays a recorded curve of memory, in MiB by step, on the GPU that tests/agent/fake_nvml shows.

Of the model configuration: `curve`; `needs` has another peak for some trials, by number, which they take beside another
trial first. All trials go on until `enough` of them have run at the same time. What does not fit raises torch's error,
or with `killed` ends as if it were the host's memory.
"""

import json
import os
import signal
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

from aimlhpo import BaseObjective

FOLDER = Path(os.environ["FAKE_NVML"])


class OutOfMemoryError(RuntimeError):
    """Named as torch's is."""


class Objective(BaseObjective):
    def train(self, trial: Any, conf: dict[str, Any]) -> dict[str, float]:
        own = FOLDER / f"taken-{os.getpid()}"
        total, peak = json.loads((FOLDER / "gpu.json").read_text())["total"], conf["needs"].get(str(trial.number))
        curve = conf["curve"] if peak is None else [*conf["curve"], peak]
        step = together = 0
        try:
            while step < len(curve) or not (FOLDER / "enough").exists():
                memory, others = curve[min(step, len(curve) - 1)], taken_by_others(own)
                if memory == peak and peak <= total:
                    others = self.wait_for_others(own, trial.number)
                if memory + others > total and conf.get("killed"):
                    own.unlink(missing_ok=True)
                    os.kill(os.getpid(), signal.SIGKILL)
                if memory + others > total:
                    raise OutOfMemoryError("CUDA out of memory")
                new = FOLDER / f"new-{os.getpid()}"
                new.write_text(str(memory))
                new.replace(own)
                together = max(together, len(list(FOLDER.glob("taken-*"))))
                if together >= conf["enough"]:
                    (FOLDER / "enough").touch()
                trial.report(1.0, step)
                step += 1
                time.sleep(0.02)
            return {"val_loss": 1.0, "together": together}
        finally:
            own.unlink(missing_ok=True)

    def wait_for_others(self, own: Path, number: int) -> int:
        waited = FOLDER / f"waited-{number}"
        while (others := taken_by_others(own)) == 0 and not waited.exists():
            time.sleep(0.01)
        waited.touch()
        return others


def taken_by_others(own: Path) -> int:
    found = 0
    for file in set(FOLDER.glob("taken-*")) - {own}:
        with suppress(FileNotFoundError):
            found += int(file.read_text())
    return found
