"""A search by asynchronous workers on a virtual clock: real samplers and pruners, trainings from a task.

`search` runs one study. As aimlhpo does, each slot's next trial is sampled when its present one begins (a sampler then
sees nothing of the present one), except for those that `claim_ahead: auto` leaves until the slot is free. Or all are
sampled then, as in Optuna's own loop. Samplers of aimlhpo are seeded for each trial by its number.
"""

from __future__ import annotations

import heapq
import warnings
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import optuna
from optuna.pruners import BasePruner, NopPruner
from optuna.samplers import BaseSampler
from optuna.trial import Trial, TrialState

from aimlhpo.agent.dispatcher import JUDGED, claims_ahead
from aimlhpo.search.sampling import reseed
from aimlhpo.storage.attributes import INFEASIBLE, RECORD
from benchmarks.search.task import Task


@dataclass(frozen=True)
class Method:
    """A way to search.

    Attributes:
        make: the sampler and the pruner for (seed, task, number of whole trainings that the budget is worth, workers).
        ahead: whether trials are sampled ahead as aimlhpo does it, and with seeds of their own.
        learns: whether it is noted with trials that run out of memory, as `on_oom: learn` does.
    """

    name: str
    make: Callable[[int, Task, int, int], tuple[BaseSampler, BasePruner]]
    ahead: bool = True
    learns: bool = True


@dataclass(frozen=True)
class Progress:
    """What a search had spent when the trial that looked best so far had ended, and how good that is without noise."""

    epochs: int
    seconds: float
    regret: float


@dataclass(frozen=True)
class Search:
    """One search: each trial that was better than those before it, and how many trials there were."""

    progress: list[Progress]
    trials: int
    complete: int
    failed: int = 0


def search(method: Method, task: Task, workers: int, budget: int, seed: int) -> Search:
    """Search until `budget` epochs are spent."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        sampler, pruner = method.make(seed, task, budget // task.epochs, workers)
        return _Clock(method, task, workers, budget, seed, sampler, pruner).run()


class _Clock:
    def __init__(
        self,
        method: Method,
        task: Task,
        workers: int,
        budget: int,
        seed: int,
        sampler: BaseSampler,
        pruner: BasePruner,
    ) -> None:
        self._method, self._task, self._workers, self._budget, self._seed = method, task, workers, budget, seed
        self._study = optuna.create_study(sampler=sampler, pruner=pruner, study_name=f"search-{seed}")
        self._prunes = not isinstance(pruner, NopPruner) and task.epochs > 1
        self._random = np.random.default_rng([seed, 1])
        self._epochs = 0

    def run(self) -> Search:
        storage, task = self._study._storage, self._task
        ready: dict[int, Trial] = {}
        events: list[tuple[float, int, int, int]] = []  # when, in which order, the slot, its trial's next epoch
        running: dict[int, tuple[Trial, Any, float]] = {}
        order = 0
        best, seconds, complete, failed, ended = np.inf, 0.0, 0, 0, 0
        durations: deque[float] = deque(maxlen=JUDGED)
        progress: list[Progress] = []

        def begin(slot: int, now: float) -> None:
            nonlocal order
            trial = ready.pop(slot) if slot in ready else self._sample()
            curve = task.curve(trial.params, int(self._random.integers(2**31)))
            pace = task.epoch_seconds(trial.params)
            running[slot] = trial, curve, pace
            order += 1
            heapq.heappush(events, (now + pace, order, slot, 0))
            if self._method.ahead and claims_ahead(ended, self._workers, durations if self._workers > 1 else []):
                ready[slot] = self._sample()

        for slot in range(self._workers):
            begin(slot, 0.0)
        while self._epochs < self._budget:
            now, _, slot, epoch = heapq.heappop(events)
            trial, curve, pace = running[slot]
            self._epochs += 1
            seconds += pace
            value = float(curve[epoch])
            last = epoch == task.epochs - 1
            trial_id = trial._trial_id
            if not task.is_feasible(trial.params):
                if self._method.learns:
                    storage.set_trial_system_attr(trial_id, RECORD, {INFEASIBLE: True})
                self._end(trial, TrialState.FAIL, np.nan)
                failed, ended = failed + 1, ended + 1
                begin(slot, now)
                continue
            if task.epochs > 1:
                storage.set_trial_intermediate_value(trial_id, epoch, value)
            if last:
                self._end(trial, TrialState.COMPLETE, value)
                complete += 1
                if value < best:
                    best = value
                    progress.append(Progress(self._epochs, seconds, task.regret(task.final(trial.params))))
            elif self._prunes and self._study.pruner.prune(self._study, storage.get_trial(trial_id)):
                self._end(trial, TrialState.PRUNED, value)
                last = True
            if last:
                ended += 1
                durations.append(pace * (epoch + 1))
                begin(slot, now)
            else:
                order += 1
                heapq.heappush(events, (now + pace, order, slot, epoch + 1))
        return Search(progress, storage.get_n_trials(self._study._study_id), complete, failed)

    def _sample(self) -> Trial:
        study, storage = self._study, self._study._storage
        if self._method.ahead:
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
        return trial

    def _end(self, trial: Trial, state: TrialState, value: float) -> None:
        if not self._method.ahead:
            self._study.tell(trial, value if state == TrialState.COMPLETE else None, state=state)
            return
        frozen = self._study._storage.get_trial(trial._trial_id)
        values = [value] if np.isfinite(value) else None
        self._study.sampler.after_trial(self._study, frozen, state, values)
        self._study._storage.set_trial_state_values(trial._trial_id, state=state, values=values)


def _suggest(trial: Trial, entry: Any) -> None:
    """Suggest one parameter, if this configuration has it."""
    if not all(trial.params.get(name) in allowed for name, allowed in entry.get("when", {}).items()):
        return
    if entry["type"] == "categorical":
        trial.suggest_categorical(entry["name"], entry["choices"])
    elif entry["type"] == "int":
        trial.suggest_int(entry["name"], entry["low"], entry["high"], log=bool(entry.get("log")))
    else:
        trial.suggest_float(entry["name"], entry["low"], entry["high"], log=bool(entry.get("log")))
