"""A study that runs a full grid: which combinations wait to be run, and a sampler that samples nothing.

A study whose parameters declare a grid (`single`, `multiple`, `linear`, `logspace`, `random`) runs each combination
once. `GridQueue` adds combinations to the study as WAITING trials, each with all its values, a hundred at a time: when
the study starts, and in an agent's storage thread whenever no trial waits any more. The caller holds the ledger's lock.

A combination whose trial has failed is run again when the study is started again. It is run again at once, at the end
of the grid, where the objective is not to blame: its worker was killed.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any

import optuna
from optuna.distributions import BaseDistribution
from optuna.samplers import BaseSampler
from optuna.trial import FrozenTrial, TrialState, create_trial

from aimlhpo.space.grid import Grid, grid_of
from aimlhpo.space.search_space import SearchSpace
from aimlhpo.storage.attributes import STUDY_ATTR, study_attributes
from aimlhpo.storage.base import backend_of
from aimlhpo.storage.study import DRAWN
from aimlhpo.storage.trials import read_record

if TYPE_CHECKING:
    from aimlhpo.config.schema import Config

FIXED = "fixed_params"  # system attribute in which Optuna keeps the values of an enqueued trial
AT_ONCE = 100  # combinations that wait at a time: a storage is slow where thousands do
MOST_KILLED = 3  # workers that one combination may cost
_KILLED = ("killed by", "out of memory: killed")  # how the recorded cause of such a failure begins


class GridSampler(BaseSampler):
    """Refuses to sample: a trial of a grid has all its values when it is added to the study."""

    def infer_relative_search_space(self, study: optuna.Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        return {}

    def sample_relative(
        self, study: optuna.Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        return {}

    def sample_independent(
        self, study: optuna.Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:
        raise ValueError(
            f"{param_name!r} is not a parameter of the grid, and a grid samples nothing: declare it in the YAML, "
            "under optuna: parameters, with a grid's type (single, multiple, linear, logspace, random)"
        )


class GridQueue:
    """Adds combinations to the study. The caller holds the ledger's lock, so that none is added twice."""

    def __init__(self, study: optuna.Study, grid: Grid, space: SearchSpace) -> None:
        self._study, self._grid, self._space = study, grid, space

    def fill(self) -> bool:
        """Queue the next combinations, and when all have run, those whose worker was killed; False if there are none.

        To be called when no trial waits.
        """
        trials = _by_combination(self._study.get_trials(deepcopy=False))
        missing = [point for key, point in self._points.items() if key not in trials]
        chosen = missing[:AT_ONCE]
        if not missing:
            for key, point in self._points.items():
                tried = trials[key]
                killed = str(read_record(tried[-1], ()).cause).startswith(_KILLED)
                if killed and _all_failed(tried) and len(tried) < MOST_KILLED:
                    chosen.append(point)
        self._enqueue(chosen)
        return bool(chosen)

    def begin(self) -> None:
        """For a study that is started, or started again: queue all combinations that have only failed, and the next."""
        trials = _by_combination(self._study.get_trials(deepcopy=False))
        self._enqueue([point for key, point in self._points.items() if key in trials and _all_failed(trials[key])])
        self._enqueue([point for key, point in self._points.items() if key not in trials][:AT_ONCE])

    def _enqueue(self, points: Iterable[dict[str, Any]]) -> None:
        new = [create_trial(state=TrialState.WAITING, system_attrs={FIXED: point}) for point in points]
        backend_of(self._study._storage).commit(self._study._study_id, [], new)

    @cached_property
    def _points(self) -> dict[str, dict[str, Any]]:
        """Every combination as the storage holds it, by its key."""
        drawn = study_attributes(self._study)[STUDY_ATTR].get(DRAWN, {})
        stored = (self._space.encode(point) for point in self._grid.points(drawn))
        return {_key(point): point for point in stored}


def queue_of(study: optuna.Study, config: Config) -> GridQueue | None:
    """The queue of a study that is a grid; None for others."""
    grid = grid_of(config.space)
    return None if grid is None else GridQueue(study, grid, config.space)


def given_up(config: Config, trials: Iterable[FrozenTrial]) -> int:
    """How many combinations of a grid have only failed: they are not run until the study is started again."""
    if grid_of(config.space) is None:
        return 0
    return sum(map(_all_failed, _by_combination(trials).values()))


def _by_combination(trials: Iterable[FrozenTrial]) -> dict[str, list[FrozenTrial]]:
    """The trials of each combination: more than one where one has failed."""
    found: dict[str, list[FrozenTrial]] = {}
    for trial in trials:
        if FIXED in trial.system_attrs:
            found.setdefault(_key(trial.system_attrs[FIXED]), []).append(trial)
    return found


def _all_failed(trials: Sequence[FrozenTrial]) -> bool:
    return all(trial.state == TrialState.FAIL for trial in trials)


def _key(stored: Mapping[str, Any]) -> str:
    return json.dumps(stored, sort_keys=True)
