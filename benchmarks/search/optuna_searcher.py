"""A searcher that is a sampler and a pruner of Optuna's interface, on a study in memory.

Samplers of aimlhpo are seeded for each trial by its number.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import optuna
from optuna.pruners import BasePruner, NopPruner
from optuna.samplers import BaseSampler
from optuna.trial import Trial, TrialState

from aimlhpo.search.sampling import reseed
from aimlhpo.storage.attributes import INFEASIBLE, RECORD
from benchmarks.search.simulation import Asked, Method, Searcher
from benchmarks.search.task import Task, active

Make = Callable[[int, Task, int, int], tuple[BaseSampler, BasePruner]]


def optuna_method(name: str, make: Make, *, as_aimlhpo: bool = True, learns: bool = True) -> Method:
    """A method whose sampler and pruner `make` makes for (seed, task, whole trainings, workers).

    Args:
        as_aimlhpo: whether trials are sampled ahead as aimlhpo does it, and with seeds of their own.
        learns: whether it is noted with trials that run out of memory, as `on_oom: learn` does.
    """

    def start(seed: int, task: Task, trainings: int, workers: int) -> Searcher:
        sampler, pruner = make(seed, task, trainings, workers)
        return _OptunaSearcher(task, seed, sampler, pruner, as_aimlhpo, learns)

    return Method(name, start, ahead=as_aimlhpo)


class _OptunaSearcher:
    def __init__(
        self, task: Task, seed: int, sampler: BaseSampler, pruner: BasePruner, as_aimlhpo: bool, learns: bool
    ) -> None:
        self._task, self._seed, self._as_aimlhpo, self._learns = task, seed, as_aimlhpo, learns
        self._study = optuna.create_study(sampler=sampler, pruner=pruner, study_name=f"search-{seed}")
        self._storage = self._study._storage
        self._prunes = not isinstance(pruner, NopPruner) and task.epochs > 1
        self._trials: dict[int, Trial] = {}

    def ask(self) -> Asked:
        study, storage = self._study, self._storage
        if self._as_aimlhpo:
            trial_id = storage.create_new_trial(study._study_id)
            number = storage.get_trial_number_from_id(trial_id)
            own = int(np.random.SeedSequence([self._seed, number]).generate_state(1)[0] % 2**31)
            reseed(study.sampler, own)
            study._thread_local.cached_all_trials = None
            trial = Trial(study, trial_id)
        else:
            trial = study.ask()
        for entry in self._task.space:
            _suggest(trial, entry)
        self._trials[trial.number] = trial
        return Asked(trial.number, trial.params, self._task.epochs)

    def report(self, asked: Asked, epoch: int, value: float) -> bool:
        trial_id = self._trials[asked.number]._trial_id
        self._keep(trial_id, epoch, value)
        stops = self._prunes and self._study.pruner.prune(self._study, self._storage.get_trial(trial_id))
        if stops:
            self._end(asked, TrialState.PRUNED, value)
        return stops

    def finish(self, asked: Asked, epoch: int, value: float) -> None:
        self._keep(self._trials[asked.number]._trial_id, epoch, value)
        self._end(asked, TrialState.COMPLETE, value)

    def failed(self, asked: Asked) -> None:
        if self._learns:
            trial_id = self._trials[asked.number]._trial_id
            self._storage.set_trial_system_attr(trial_id, RECORD, {INFEASIBLE: True})
        self._end(asked, TrialState.FAIL, np.nan)

    def _keep(self, trial_id: int, epoch: int, value: float) -> None:
        if self._task.epochs > 1:
            self._storage.set_trial_intermediate_value(trial_id, epoch, value)

    def _end(self, asked: Asked, state: TrialState, value: float) -> None:
        trial = self._trials.pop(asked.number)
        if not self._as_aimlhpo:
            self._study.tell(trial, value if state == TrialState.COMPLETE else None, state=state)
            return
        frozen = self._storage.get_trial(trial._trial_id)
        values = [value] if np.isfinite(value) else None
        self._study.sampler.after_trial(self._study, frozen, state, values)
        self._storage.set_trial_state_values(trial._trial_id, state=state, values=values)


def _suggest(trial: Trial, entry: Any) -> None:
    """Suggest one parameter, if this configuration has it."""
    if not active(entry, trial.params):
        return
    if entry["type"] == "categorical":
        trial.suggest_categorical(entry["name"], entry["choices"])
    elif entry["type"] == "int":
        trial.suggest_int(entry["name"], entry["low"], entry["high"], log=bool(entry.get("log")))
    else:
        trial.suggest_float(entry["name"], entry["low"], entry["high"], log=bool(entry.get("log")))
