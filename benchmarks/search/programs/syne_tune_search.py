"""Syne Tune's schedulers, called as its Tuner calls them.

Parameters that a configuration does not have are suggested all the same: there are no conditional ones. A task of one
epoch is given to the searcher alone, as its baselines for one fidelity do. So is every task with the Gaussian process:
under ASHA it suggests at random in 0.16, as an error in fitting it is taken for numerical trouble.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any

from serving import PeerSearcher, Request, serve
from syne_tune import config_space
from syne_tune.backend.trial_status import Trial
from syne_tune.optimizer.scheduler import SchedulerDecision, TrialScheduler
from syne_tune.optimizer.schedulers.asha import AsynchronousSuccessiveHalving
from syne_tune.optimizer.schedulers.searchers.searcher_factory import searcher_factory
from syne_tune.optimizer.schedulers.single_objective_scheduler import SingleObjectiveScheduler

SEARCHERS = {"asha": "random_search", "bohb": "kde", "gp": "botorch", "cqr": "cqr", "bore": "bore"}


def domain(entry: dict[str, Any]) -> Any:
    if entry["type"] == "categorical":
        return config_space.choice(entry["choices"])
    names = {("float", False): "uniform", ("float", True): "loguniform", ("int", False): "randint"}
    kind = names.get((entry["type"], bool(entry.get("log"))), "lograndint")
    return getattr(config_space, kind)(entry["low"], entry["high"])


def scheduler_of(request: Request) -> TrialScheduler:
    space = {entry["name"]: domain(entry) for entry in request["space"]}
    searcher = SEARCHERS[request["method"]]
    if request["epochs"] == 1 or request["method"] == "gp":
        return SingleObjectiveScheduler(
            space,
            metric="loss",
            searcher=searcher_factory(searcher, space, random_seed=request["seed"]),
            random_seed=request["seed"],
        )
    return AsynchronousSuccessiveHalving(
        space,
        metric="loss",
        time_attr="epoch",
        max_t=request["epochs"],
        searcher=searcher,
        random_seed=request["seed"],
    )


class SyneTune:
    def __init__(self, request: Request) -> None:
        self._scheduler, self._epochs = scheduler_of(request), request["epochs"]
        self._trials: list[Trial] = []

    def ask(self) -> tuple[int, dict[str, Any], int]:
        suggestion = self._scheduler.suggest()
        trial = Trial(len(self._trials), suggestion.config, datetime.now())
        self._trials.append(trial)
        self._scheduler.on_trial_add(trial)
        return trial.trial_id, trial.config, self._epochs

    def report(self, number: int, epoch: int, value: float) -> bool:
        decision = self._scheduler.on_trial_result(self._trials[number], {"loss": value, "epoch": epoch})
        if decision == SchedulerDecision.STOP:
            self._scheduler.on_trial_remove(self._trials[number])
        return decision == SchedulerDecision.STOP

    def finish(self, number: int, epoch: int, value: float) -> None:
        if not self.report(number, epoch, value):
            self._scheduler.on_trial_complete(self._trials[number], {"loss": value, "epoch": epoch})

    def failed(self, number: int) -> None:
        self._scheduler.on_trial_error(self._trials[number])


def start(request: Request) -> PeerSearcher:
    return SyneTune(request)


if __name__ == "__main__":
    serve(start)
