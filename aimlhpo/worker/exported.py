"""Trains the trial that `aimlhpo export` has written to a directory, as a worker would, but without a study.

Runs in a process of the user's own, which `train.py` in that directory starts.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from aimlhpo.config.yaml import load_yaml
from aimlhpo.errors import AimlhpoError, ConfigError, Problem, show_number
from aimlhpo.objective.messages import (
    COMPLETE,
    Assignment,
    LoadFailed,
    ReadRequest,
    Report,
    Setup,
    StudyInfo,
    SuggestRequest,
)
from aimlhpo.worker.channel import Relay
from aimlhpo.worker.worker import attempt, load

CHECKPOINT = "checkpoint"  # in the directory; what is there already, the objective goes on from


class ExportedChannel:
    """Answers for an agent where there is none: nothing is pruned, and reports are printed.

    `values` are those of parameters that no YAML file declares, by their names.
    """

    def __init__(self, values: dict[str, Any]) -> None:
        self._values = values

    def send(self, message: object) -> None:
        """Take note of a message that has no answer."""
        if isinstance(message, Report):
            print(f"step {message.step}: {show_number(message.value)}", flush=True)

    def request(self, message: SuggestRequest | ReadRequest) -> Any:
        """The value of a parameter. Raises RuntimeError for what only a study knows."""
        if isinstance(message, ReadRequest):
            raise RuntimeError(f"this training belongs to no study, so that {message.what} cannot be read")
        name = message.arguments["name"]
        if name not in self._values:
            raise RuntimeError(f"the trial that was exported has no value for {name!r}")
        return self._values[name]

    def decision(self, number: int, step: int | None, *, wait: bool) -> bool:
        """Nothing is pruned."""
        return False


def train_again(directory: Path) -> int:
    """Train, and print the values that were reached beside the expected ones.

    Args:
        directory: what `aimlhpo export` has written.

    Returns the exit code: 0 where the training was completed, 1 where it failed, 2 where it could not begin.
    """
    try:
        data, conf = _read(directory)
    except AimlhpoError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    study = StudyInfo(data["study"], data["direction"], data["metric"], data["reported_metric"])
    setup = Setup(str(directory / data["objective"]), conf, "cuda:0" if data["gpu"] else "cpu", study)
    objective = load(setup, setup.device)
    if isinstance(objective, LoadFailed):
        print(f"error: {objective.message}\n{objective.detail}".rstrip(), file=sys.stderr)
        return 2
    assignment = Assignment(
        number=data["number"],
        attempt=1,
        conf=conf,
        values=data["parameters"],
        names=data["names"],
        settings=data["settings"],
        plain=data["plain"],
        seed=data["seed"],
        checkpoint_dir=str(directory / CHECKPOINT),
        reports=data["reported_metric"] is not None,
        distributions=data["distributions"],
    )
    outcome = attempt(objective, assignment, ExportedChannel(data["undeclared"]), study, Relay())
    if outcome.state != COMPLETE or outcome.values is None:
        print(f"the training ended {outcome.state}: {outcome.cause or 'by itself'}", file=sys.stderr)
        return 1
    for name, value in zip(data["metric"], outcome.values, strict=True):
        expected = data["expected"][name]
        print(f"{name}: {value!r}" + (", as expected" if value == expected else f"; expected: {expected!r}"))
    return 0


def _read(directory: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """The description of the trial, and the configuration that train() is given. Raises ConfigError."""
    legal = "a directory that `aimlhpo export` has written"
    try:
        data = json.loads((directory / "trial.json").read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ConfigError(Problem(str(directory / "trial.json"), f"cannot be read: {error}", legal)) from error
    model = load_yaml(directory / "model.yml", dates=True)
    if not isinstance(model, dict):
        raise ConfigError(Problem(str(directory / "model.yml"), "is not a mapping", legal))
    return data, {**model, "optuna": data["optuna"]}
