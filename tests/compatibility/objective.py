"""What the stored studies train: steps without work, each with a line of evidence, a checkpoint and a report."""

from __future__ import annotations

import json
import math
import os
import time
from pathlib import Path
from typing import Any

from aimlhpo import BaseObjective
from aimlhpo.callbacks.torch import report_or_prune

HERE = Path(__file__).parent


class Objective(BaseObjective):
    """Fails, or returns NaN, where the model configuration lists the trial's number under `fails` or `diverges`."""

    def train(self, trial: Any, conf: dict[str, Any]) -> dict[str, Any]:
        custom_updates(trial, conf)
        note(trial, "begin", reports=sorted(trial.intermediate_values), attributes=sorted(trial.user_attrs))
        set_attributes(trial, conf)
        if trial.number in conf.get("diverges", []):
            return {"loss": math.nan}
        checkpoint = self.checkpoint_dir(trial) / "state.json"
        state = json.loads(checkpoint.read_text()) if checkpoint.exists() else {"step": 0}
        for step in range(state["step"], conf["steps"]):
            wait_while_held(trial, step)
            if step == 1 and trial.number in conf.get("fails", []):
                raise ValueError(f"trial {trial.number} fails, as it should")
            note(trial, "step", step=step)
            save(checkpoint, {"step": step + 1})
            report_or_prune(trial, conf["x"] + 1 / (1 + step), step)
        note(trial, "end")
        return results(conf)


def custom_updates(trial: Any, conf: dict[str, Any]) -> None:
    """What no single value of the model configuration can hold."""
    if "depth" in trial.params:
        conf["hidden"] = {"sizes": [8] * trial.suggest("depth")}
    if conf.get("asks"):
        conf["asked"] = trial.suggest_float("asked", 0.0, 2.0)


def set_attributes(trial: Any, conf: dict[str, Any]) -> None:
    trial.set_user_attr("begun", {"attempt": trial.attempt, "steps": [0, conf["steps"]]})
    trial.set_user_attr("note", "größer")
    if trial.number < conf.get("padded", 0):
        trial.set_user_attr("padding", "." * 600_000)


def results(conf: dict[str, Any]) -> dict[str, Any]:
    """The metric, and more to be kept."""
    size = conf.get("size", 1)
    return {
        "loss": conf["x"] + 1 / conf["steps"],
        "size": size,
        "latency": size * (1 - conf["x"]),
        "kind": "small",
        "even": size % 2 == 0,
    }


def note(trial: Any, event: str, **more: Any) -> None:
    """Add a line to the evidence, which no storage and no result file can change."""
    line = json.dumps({"trial": trial.number, "attempt": trial.attempt, "event": event, **more})
    with open(HERE / "evidence.jsonl", "a") as file:
        file.write(line + "\n")


def wait_while_held(trial: Any, step: int) -> None:
    """Stand still at that step for as long as there is a file that says so."""
    hold = HERE / f"hold-{trial.number}-{step}"
    if hold.exists():
        note(trial, "held")
    while hold.exists():
        time.sleep(0.01)


def save(checkpoint: Path, state: dict[str, int]) -> None:
    checkpoint.with_suffix(".new").write_text(json.dumps(state))
    os.replace(checkpoint.with_suffix(".new"), checkpoint)
