"""NePS' optimizers, by ask and tell.

Tasks with reports get PriorBand, without a prior: it samples at random and around the best configuration. One that is
promoted goes on from where it was. A task of one epoch gets Bayesian optimization.
Parameters that a configuration does not have are suggested all the same: the optimizers know of no conditional ones.
"""

from __future__ import annotations

from typing import Any

import neps
import torch
from neps.optimizers import load_optimizer
from serving import PeerSearcher, Request, serve

FIDELITY = "trained epochs"


def parameter(entry: dict[str, Any]) -> Any:
    if entry["type"] == "categorical":
        return neps.Categorical(tuple(entry["choices"]))
    kind = neps.Integer if entry["type"] == "int" else neps.Float
    return kind(entry["low"], entry["high"], log=bool(entry.get("log")))


class Neps:
    def __init__(self, request: Request) -> None:
        torch.manual_seed(request["seed"])
        self._epochs = request["epochs"]
        members = {entry["name"]: parameter(entry) for entry in request["space"]}
        if self._epochs > 1:
            members[FIDELITY] = neps.IntegerFidelity(1, self._epochs)
        space = type("Space", (neps.PipelineSpace,), members)()
        optimizer, _ = load_optimizer("priorband" if self._epochs > 1 else "bayesian_optimization", space)
        self._optimizer = neps.AskAndTell(optimizer)
        self._numbers: dict[str, int] = {}  # of a configuration, whose trials are its number, _, and the rung
        self._asked: dict[int, Any] = {}

    def ask(self) -> tuple[int, dict[str, Any], int]:
        trial = self._optimizer.ask()
        number = self._numbers.setdefault(trial.id.partition("_")[0], len(self._numbers))
        self._asked[number] = trial
        return number, dict(trial.config), trial.config.get(FIDELITY, self._epochs)

    def report(self, number: int, epoch: int, value: float) -> bool:
        return False

    def finish(self, number: int, epoch: int, value: float) -> None:
        self._optimizer.tell(self._asked[number], value)

    def failed(self, number: int) -> None:
        self._optimizer.tell(self._asked[number], RuntimeError("out of memory"))


def start(request: Request) -> PeerSearcher:
    return Neps(request)


if __name__ == "__main__":
    serve(start)
