"""Ray Tune's ASHA scheduler with OptunaSearch, called as its controller calls them, without a cluster.

OptunaSearch gets a function that suggests, so that parameters depend on others. It is told the last value of a trial
that the scheduler stops as if that were its result, as Ray Tune does.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ray.tune.schedulers import AsyncHyperBandScheduler
from ray.tune.schedulers.trial_scheduler import TrialScheduler
from ray.tune.search.optuna import OptunaSearch
from serving import PeerSearcher, Request, serve


@dataclass(frozen=True)
class Trial:
    """What the scheduler reads of a trial."""

    trial_id: str


class RayTune:
    def __init__(self, request: Request) -> None:
        self._space, self._epochs, self._trials = request["space"], request["epochs"], 0
        self._search = OptunaSearch(space=self._suggest, metric="loss", mode="min", seed=request["seed"])
        self._scheduler = AsyncHyperBandScheduler(
            time_attr="training_iteration", metric="loss", mode="min", max_t=self._epochs
        )

    def _suggest(self, trial: Any) -> None:
        values: dict[str, Any] = {}
        for entry in self._space:
            name = entry["name"]
            if not all(values.get(other) in allowed for other, allowed in entry.get("when", {}).items()):
                continue
            if entry["type"] == "categorical":
                values[name] = trial.suggest_categorical(name, entry["choices"])
            else:
                suggest = trial.suggest_int if entry["type"] == "int" else trial.suggest_float
                values[name] = suggest(name, entry["low"], entry["high"], log=bool(entry.get("log")))

    def ask(self) -> tuple[int, dict[str, Any], int]:
        number = self._trials
        self._trials += 1
        values = self._search.suggest(str(number))
        self._scheduler.on_trial_add(None, Trial(str(number)))
        return number, values, self._epochs

    def report(self, number: int, epoch: int, value: float) -> bool:
        result = {"loss": value, "training_iteration": epoch}
        if self._scheduler.on_trial_result(None, Trial(str(number)), result) == TrialScheduler.STOP:
            return True
        self._search.on_trial_result(str(number), result)
        return False

    def finish(self, number: int, epoch: int, value: float) -> None:
        self.report(number, epoch, value)
        self.stopped(number, epoch, value)

    def stopped(self, number: int, epoch: int, value: float) -> None:
        result = {"loss": value, "training_iteration": epoch}
        self._scheduler.on_trial_complete(None, Trial(str(number)), result)
        self._search.on_trial_complete(str(number), result)

    def failed(self, number: int) -> None:
        self._scheduler.on_trial_error(None, Trial(str(number)))
        self._search.on_trial_complete(str(number), error=True)


def start(request: Request) -> PeerSearcher:
    return RayTune(request)


if __name__ == "__main__":
    serve(start)
