"""Ray Tune's schedulers and searchers, called as its controller calls them, without a cluster.

OptunaSearch gets a function that suggests, so that parameters depend on others. BOHB suggests those too that a
configuration does not have. A trial that the scheduler pauses is asked for again once it is promoted.
"""

from __future__ import annotations

from typing import Any

from ray import tune
from ray.tune.experiment import Trial as RayTrial
from ray.tune.schedulers import AsyncHyperBandScheduler, HyperBandForBOHB
from ray.tune.schedulers.trial_scheduler import TrialScheduler
from ray.tune.search.bohb import TuneBOHB
from ray.tune.search.optuna import OptunaSearch
from serving import PeerSearcher, Request, serve

GOALS = {"metric": "loss", "mode": "min"}


class Trial:
    """What schedulers read of a trial."""

    is_saving = False

    def __init__(self, number: int, values: dict[str, Any]) -> None:
        self.number, self.trial_id, self.values = number, str(number), values
        self.status = RayTrial.PENDING


class Controller:
    """What schedulers call of Ray Tune's controller."""

    def __init__(self, scheduler: Any, searcher: Any) -> None:
        self.scheduler, self.searcher, self.trials = scheduler, searcher, []
        self.search_alg = self  # whose `searcher` they tell of a pause

    def get_trials(self) -> list[Trial]:
        return self.trials

    def get_live_trials(self) -> list[Trial]:
        return [trial for trial in self.trials if trial.status != RayTrial.TERMINATED]

    def stop_trial(self, trial: Trial) -> None:
        """End a trial that is not running."""
        self.scheduler.on_trial_remove(self, trial)
        self.searcher.on_trial_complete(trial.trial_id)
        trial.status = RayTrial.TERMINATED


def optuna_search(request: Request) -> OptunaSearch:
    def suggest(trial: Any) -> None:
        values: dict[str, Any] = {}
        for entry in request["space"]:
            name = entry["name"]
            if not all(values.get(other) in allowed for other, allowed in entry.get("when", {}).items()):
                continue
            if entry["type"] == "categorical":
                values[name] = trial.suggest_categorical(name, entry["choices"])
            else:
                of_kind = trial.suggest_int if entry["type"] == "int" else trial.suggest_float
                values[name] = of_kind(name, entry["low"], entry["high"], log=bool(entry.get("log")))

    return OptunaSearch(space=suggest, seed=request["seed"], **GOALS)


def bohb_search(request: Request) -> TuneBOHB:
    space = {}
    for entry in request["space"]:
        if entry["type"] == "categorical":
            space[entry["name"]] = tune.choice(entry["choices"])
        else:
            log, whole = bool(entry.get("log")), entry["type"] == "int"
            of_kind = {(0, 0): tune.uniform, (0, 1): tune.loguniform, (1, 0): tune.randint, (1, 1): tune.lograndint}
            high = entry["high"] + whole  # the upper bound of whole numbers is not among them
            space[entry["name"]] = of_kind[whole, log](entry["low"], high)
    return TuneBOHB(space=space, seed=request["seed"], **GOALS)


class RayTune:
    def __init__(self, request: Request) -> None:
        self._epochs = request["epochs"]
        scheduler, searcher = {
            "asha": (AsyncHyperBandScheduler, optuna_search),
            "bohb": (HyperBandForBOHB, bohb_search),
        }[request["method"]]
        self._scheduler = scheduler(time_attr="training_iteration", max_t=self._epochs, **GOALS)
        self._searcher = searcher(request)
        self._controller = Controller(self._scheduler, self._searcher)

    def ask(self) -> tuple[int, dict[str, Any], int] | None:
        trials = self._controller.trials
        if not any(trial.status == RayTrial.PENDING for trial in trials[-1:]):
            number = len(trials)
            trials.append(Trial(number, self._searcher.suggest(str(number))))
            self._scheduler.on_trial_add(self._controller, trials[-1])
        trial = self._scheduler.choose_trial_to_run(self._controller)
        if trial is None:
            return None
        trial.status = RayTrial.RUNNING
        return trial.number, trial.values, self._epochs

    def report(self, number: int, epoch: int, value: float) -> bool:
        trial, result = self._controller.trials[number], {"loss": value, "training_iteration": epoch}
        decision = self._scheduler.on_trial_result(self._controller, trial, result)
        if decision == TrialScheduler.STOP:
            self._complete(trial, result)
        else:
            self._searcher.on_trial_result(trial.trial_id, result)
        if decision == TrialScheduler.PAUSE:
            trial.status = RayTrial.PAUSED
        return decision != TrialScheduler.CONTINUE

    def finish(self, number: int, epoch: int, value: float) -> None:
        if not self.report(number, epoch, value):
            self._complete(self._controller.trials[number], {"loss": value, "training_iteration": epoch})

    def _complete(self, trial: Trial, result: dict[str, Any]) -> None:
        self._scheduler.on_trial_complete(self._controller, trial, result)
        self._searcher.on_trial_complete(trial.trial_id, result)
        trial.status = RayTrial.TERMINATED

    def failed(self, number: int) -> None:
        trial = self._controller.trials[number]
        self._scheduler.on_trial_error(self._controller, trial)
        self._searcher.on_trial_complete(trial.trial_id, error=True)
        trial.status = RayTrial.TERMINATED


def start(request: Request) -> PeerSearcher:
    return RayTune(request)


if __name__ == "__main__":
    serve(start)
