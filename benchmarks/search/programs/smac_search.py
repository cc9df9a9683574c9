"""SMAC3's facades, by ask and tell.

Tasks with reports get the facade for several fidelities: Hyperband, with a random forest. A configuration that is asked
for again with a larger budget goes on from where it was. A task of one epoch gets the facade that SMAC recommends for
hyperparameters. Each configuration is trained with one seed.
"""

from __future__ import annotations

import logging
import tempfile
from pathlib import Path
from typing import Any

from ConfigSpace import (
    AndConjunction,
    Categorical,
    ConfigurationSpace,
    Float,
    InCondition,
    Integer,
)
from serving import PeerSearcher, Request, serve
from smac import HyperparameterOptimizationFacade, MultiFidelityFacade, Scenario
from smac.runhistory import StatusType, TrialInfo, TrialValue

TRIALS = 5  # trials of Hyperband for what a whole training costs: 69 for 357 epochs of 27


def space_of(request: Request) -> ConfigurationSpace:
    space = ConfigurationSpace(seed=request["seed"])
    for entry in request["space"]:
        name = entry["name"]
        if entry["type"] == "categorical":
            space.add(Categorical(name, entry["choices"]))
        else:
            kind = Integer if entry["type"] == "int" else Float
            space.add(kind(name, (entry["low"], entry["high"]), log=bool(entry.get("log"))))
    for entry in request["space"]:
        conditions = [
            InCondition(space[entry["name"]], space[other], allowed) for other, allowed in entry.get("when", {}).items()
        ]
        if conditions:
            space.add(AndConjunction(*conditions) if len(conditions) > 1 else conditions[0])
    return space


class Smac:
    def __init__(self, request: Request) -> None:
        self._epochs = request["epochs"]
        self._output = tempfile.TemporaryDirectory()
        budgets = {"min_budget": 1, "max_budget": self._epochs} if self._epochs > 1 else {}
        scenario = Scenario(
            space_of(request),
            output_directory=Path(self._output.name),
            deterministic=True,
            n_trials=request["trainings"] * (TRIALS if budgets else 1),
            seed=request["seed"],
            **budgets,
        )
        facade = MultiFidelityFacade if budgets else HyperparameterOptimizationFacade
        self._facade = facade(scenario, target_function=None, overwrite=True, logging_level=logging.ERROR)
        self._numbers: dict[Any, int] = {}
        self._asked: dict[int, TrialInfo] = {}

    def ask(self) -> tuple[int, dict[str, Any], int] | None:
        try:
            info = self._facade.ask()
        except StopIteration:  # it finds no configuration that is new
            return None
        number = self._numbers.setdefault(info.config, len(self._numbers))
        self._asked[number] = info
        return number, dict(info.config), self._epochs if info.budget is None else max(1, round(info.budget))

    def report(self, number: int, epoch: int, value: float) -> bool:
        return False

    def finish(self, number: int, epoch: int, value: float) -> None:
        self._facade.tell(self._asked[number], TrialValue(cost=value, time=epoch), save=False)

    def failed(self, number: int) -> None:
        self._facade.tell(self._asked[number], TrialValue(cost=float("inf"), status=StatusType.CRASHED), save=False)


def start(request: Request) -> PeerSearcher:
    return Smac(request)


if __name__ == "__main__":
    serve(start)
