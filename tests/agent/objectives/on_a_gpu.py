"""Plays a recorded curve of memory, in MiB by step, on the GPU that tests/agent/fake_nvml shows.

Of the model configuration: `curve`; `needs` has another peak for some trials, by number, which they take beside another
trial first. All trials go on until `enough` of them have run at the same time. What does not fit raises torch's error,
or with `killed` ends as if it were the host's memory. Those of `collide` run out of memory together, once. Loading the
objective takes `loading`; where that does not fit, it is enough, too. A trial that has run out of memory before looks
for other processes for a while.
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
    def __init__(self, study: Any, config: dict[str, Any], metric: Any, device: str) -> None:
        super().__init__(study, config, metric, device)
        (FOLDER / f"process-{os.getpid()}").touch()
        total = json.loads((FOLDER / "gpu.json").read_text())["total"]
        if config["loading"] + taken_by_others(FOLDER / f"taken-{os.getpid()}") > total:
            (FOLDER / "enough").touch()
            raise OutOfMemoryError("CUDA out of memory")

    def train(self, trial: Any, conf: dict[str, Any]) -> dict[str, float]:
        own = FOLDER / f"taken-{os.getpid()}"
        total, peak = json.loads((FOLDER / "gpu.json").read_text())["total"], conf["needs"].get(str(trial.number))
        curve = conf["curve"] if peak is None else [*conf["curve"], peak]
        step = together = processes = 0
        try:
            if trial.number in conf["collide"] and not (FOLDER / f"waited-{trial.number}").exists():
                collide(trial.number, conf["collide"])
            if (FOLDER / f"waited-{trial.number}").exists():
                for _ in range(50):
                    processes = max(processes, other_processes())
                    time.sleep(0.02)
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
            return {"val_loss": 1.0, "together": together, "processes": processes}
        finally:
            own.unlink(missing_ok=True)

    def wait_for_others(self, own: Path, number: int) -> int:
        waited = FOLDER / f"waited-{number}"
        while (others := taken_by_others(own)) == 0 and not waited.exists():
            time.sleep(0.01)
        waited.touch()
        return others


def collide(number: int, numbers: list[int]) -> None:
    (FOLDER / f"waited-{number}").touch()
    while not all((FOLDER / f"waited-{other}").exists() for other in numbers):
        time.sleep(0.01)
    raise OutOfMemoryError("CUDA out of memory")


def other_processes() -> int:
    """Living processes that hold an objective, but for this one."""
    numbers = {file.name.removeprefix("process-") for file in FOLDER.glob("process-*")} - {str(os.getpid())}
    return sum(Path("/proc", number).exists() for number in numbers)


def taken_by_others(own: Path) -> int:
    found = 0
    for file in set(FOLDER.glob("taken-*")) - {own}:
        with suppress(FileNotFoundError):
            found += int(file.read_text())
    return found
