"""Studies whose trials are all fixed beforehand: which of them wait to be run, and a sampler that samples nothing.

There are two of them. A study whose parameters declare a grid (`single`, `multiple`, `linear`, `logspace`, `random`)
runs each combination once. A confirmation trains chosen configurations of another study again, each with several seeds
(`aimlhpo.search.confirmation`).

A `TrialQueue` adds such trials to the study as WAITING ones, each with all its values, a hundred at a time: when the
study starts, and in an agent's storage thread whenever no trial waits any more. The caller holds the ledger's lock.

What has failed is run again when the study is started again. It is run again at once, at the end of the study, where
the objective is not to blame: its worker was killed.
"""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any

import optuna
from optuna.distributions import BaseDistribution
from optuna.samplers import BaseSampler
from optuna.trial import FrozenTrial, TrialState, create_trial

from aimlhpo.space.search_space import Grid, SearchSpace, grid_of
from aimlhpo.storage.attributes import CONFIRMATION, STUDY_ATTR, study_attributes
from aimlhpo.storage.base import backend_of
from aimlhpo.storage.study import DRAWN, trial_seed
from aimlhpo.storage.trials import CONFIRMED, read_record

if TYPE_CHECKING:
    from aimlhpo.config.schema import Config

FIXED = "fixed_params"  # system attribute in which Optuna keeps the values of an enqueued trial
AT_ONCE = 100  # trials that wait at a time: a storage is slow where thousands do
MOST_KILLED = 3  # workers that one of the fixed trials may cost
_KILLED = ("killed by", "out of memory: killed")  # how the recorded cause of such a failure begins


class FixedSampler(BaseSampler):
    """Refuses to sample: the trials of such a study have all their values when they are added to it.

    `refusal` says why, and what to do.
    """

    def __init__(self, refusal: str = "") -> None:
        self._refusal = refusal

    def infer_relative_search_space(self, study: optuna.Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        return {}

    def sample_relative(
        self, study: optuna.Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        return {}

    def sample_independent(
        self, study: optuna.Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:
        raise ValueError(f"{param_name!r} {self._refusal}")


class TrialQueue(ABC):
    """Adds its trials to the study. The caller holds the ledger's lock, so that none is added twice.

    Attributes:
        refusal: what a parameter without a fixed value is told, after its name.
    """

    refusal: str

    def __init__(self, study: optuna.Study) -> None:
        self._study = study

    @cached_property
    @abstractmethod
    def entries(self) -> Mapping[str, dict[str, Any]]:
        """The system attributes of every trial that is to be run, by its key, in their order."""

    @staticmethod
    @abstractmethod
    def key_of(trial: FrozenTrial) -> str | None:
        """Which entry a trial of the study was made for; None for another trial."""

    def fill(self) -> bool:
        """Queue the next trials, and when all have run, those whose worker was killed; False if there are none.

        To be called when no trial waits.
        """
        tried = self._tried()
        missing = [key for key in self.entries if key not in tried]
        chosen = missing[:AT_ONCE]
        if not missing:
            for key in self.entries:
                killed = str(read_record(tried[key][-1], ()).cause).startswith(_KILLED)
                if killed and _all_failed(tried[key]) and len(tried[key]) < MOST_KILLED:
                    chosen.append(key)
        self._enqueue(chosen)
        return bool(chosen)

    def begin(self) -> None:
        """For a study that is started, or started again: queue all that has only failed, and the next trials."""
        tried = self._tried()
        self._enqueue(key for key in self.entries if key in tried and _all_failed(tried[key]))
        self._enqueue([key for key in self.entries if key not in tried][:AT_ONCE])

    def given_up(self) -> int:
        """How many entries have only failed: they are not run until the study is started again."""
        return sum(map(_all_failed, self._tried().values()))

    def _enqueue(self, keys: Iterable[str]) -> None:
        new = [create_trial(state=TrialState.WAITING, system_attrs=self.entries[key]) for key in keys]
        backend_of(self._study._storage).commit(self._study._study_id, [], new)

    def _tried(self) -> dict[str, list[FrozenTrial]]:
        """The trials of each entry: more than one where one has failed."""
        found: dict[str, list[FrozenTrial]] = {}
        for trial in self._study.get_trials(deepcopy=False):
            key = self.key_of(trial)
            if key is not None:
                found.setdefault(key, []).append(trial)
        return found


class GridQueue(TrialQueue):
    """Every combination of a grid once."""

    refusal = (
        "is not a parameter of the grid, and a grid samples nothing: declare it in the YAML, "
        "under optuna: parameters, with a grid's type (single, multiple, linear, logspace, random)"
    )

    def __init__(self, study: optuna.Study, grid: Grid, space: SearchSpace) -> None:
        super().__init__(study)
        self._grid, self._space = grid, space

    @cached_property
    def entries(self) -> dict[str, dict[str, Any]]:
        drawn = study_attributes(self._study)[STUDY_ATTR].get(DRAWN, {})
        stored = (self._space.encode(point) for point in self._grid.points(drawn))
        return {_as_key(point): {FIXED: point} for point in stored}

    @staticmethod
    def key_of(trial: FrozenTrial) -> str | None:
        return _as_key(trial.system_attrs[FIXED]) if FIXED in trial.system_attrs else None


class ConfirmationQueue(TrialQueue):
    """Every configuration of a confirmation once with each of its seeds; `plan` is the study's CONFIRMATION."""

    refusal = (
        "has no value in the trial that is confirmed, and a confirmation samples nothing: "
        "train() must ask for the same parameters in each training of a configuration"
    )

    def __init__(self, study: optuna.Study, plan: Mapping[str, Any]) -> None:
        super().__init__(study)
        self._plan = plan

    @cached_property
    def entries(self) -> dict[str, dict[str, Any]]:
        """First all configurations with their first seed, then all with their second, and so on."""
        configurations = self._plan["configurations"]
        found = {}
        for repeat in range(max(entry["seeds"] for entry in configurations)):
            for entry in configurations:
                if repeat < entry["seeds"]:
                    number = entry["trial"]
                    seed = trial_seed(self._plan["seed"], number, repeat, 2)
                    mark = {"trial": number, "repeat": repeat, "seed": seed, "keys": self._plan["seed_keys"]}
                    found[f"{number}/{repeat}"] = {FIXED: entry["params"], CONFIRMED: mark}
        return found

    @staticmethod
    def key_of(trial: FrozenTrial) -> str | None:
        mark = trial.system_attrs.get(CONFIRMED)
        return f"{mark['trial']}/{mark['repeat']}" if mark else None


def queue_of(study: optuna.Study, config: Config) -> TrialQueue | None:
    """The queue of a study whose trials are fixed beforehand; None for others."""
    plan = study_attributes(study).get(CONFIRMATION)
    if plan is not None:
        return ConfirmationQueue(study, plan)
    grid = grid_of(config.space)
    return None if grid is None else GridQueue(study, grid, config.space)


def _all_failed(trials: Sequence[FrozenTrial]) -> bool:
    return all(trial.state == TrialState.FAIL for trial in trials)


def _as_key(stored: Mapping[str, Any]) -> str:
    return json.dumps(stored, sort_keys=True)
