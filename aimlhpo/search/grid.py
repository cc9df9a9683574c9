"""Runs a full grid: queues its combinations under the ledger's lock, and samples nothing else."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any

import optuna
from optuna.distributions import BaseDistribution
from optuna.samplers import BaseSampler
from optuna.trial import FrozenTrial, TrialState, create_trial

from aimlhpo.space.grid import Grid, grid_of
from aimlhpo.space.search_space import SearchSpace
from aimlhpo.storage.owned import backend_of
from aimlhpo.storage.study import DRAWN
from aimlhpo.storage.trials import ATTRIBUTE, read_record

if TYPE_CHECKING:
    from aimlhpo.config.schema import Config

FIXED = "fixed_params"  # where Optuna looks for the values of an enqueued trial
AT_ONCE = 100  # combinations that wait at a time: a storage is slow where thousands do
_DEATHS = ("killed by", "out of memory: killed")
MOST_DEATHS = 3  # workers that one combination may cost


class GridSampler(BaseSampler):
    """Refuses to sample: every value of a grid's trial is given with the trial."""

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
    """The combinations that no trial of the study has yet. The caller holds the ledger's lock."""

    def __init__(self, study: optuna.Study, grid: Grid, space: SearchSpace) -> None:
        self._study, self._grid, self._space = study, grid, space

    def fill(self) -> bool:
        """Queue the next combinations, and in the end those whose worker was killed; False if there are none."""
        trials = self._trials()
        missing = [point for key, point in self._points.items() if key not in trials]
        cut_off = (point for key, point in self._points.items() if _was_cut_off(trials[key]))
        chosen = missing[:AT_ONCE] or list(cut_off)
        self._enqueue(chosen)
        return bool(chosen)

    def begin(self) -> None:
        """Queue what a study needs that is started (again): all combinations that have only failed, and the next."""
        trials = self._trials()
        self._enqueue([point for key, point in self._points.items() if key in trials and _all_failed(trials[key])])
        self._enqueue([point for key, point in self._points.items() if key not in trials][:AT_ONCE])

    def _trials(self) -> dict[str, list[FrozenTrial]]:
        return _by_combination(self._study.get_trials(deepcopy=False))

    def _enqueue(self, points: Iterable[dict[str, Any]]) -> None:
        new = [create_trial(state=TrialState.WAITING, system_attrs={FIXED: point}) for point in points]
        backend_of(self._study._storage).commit(self._study._study_id, [], new)

    @cached_property
    def _points(self) -> dict[str, dict[str, Any]]:
        """What the storage holds for each combination, by key."""
        return {_key(point): point for point in self._stored()}

    def _stored(self) -> Iterator[dict[str, Any]]:
        drawn = self._study.user_attrs[ATTRIBUTE].get(DRAWN, {})
        return (self._space.encode(point) for point in self._grid.points(drawn))


def queue_of(study: optuna.Study, config: Config) -> GridQueue | None:
    """The queue of a study that is a grid."""
    grid = declared_grid(config)
    return None if grid is None else GridQueue(study, grid, config.space)


def declared_grid(config: Config) -> Grid | None:
    """The grid that the configuration declares, or None."""
    return grid_of(config.space)


def given_up(config: Config, trials: Iterable[FrozenTrial]) -> int:
    """Combinations of a grid that have only failed, and that nobody runs again before the study is started again."""
    if declared_grid(config) is None:
        return 0
    return sum(_all_failed(known) for known in _by_combination(trials).values())


def _by_combination(trials: Iterable[FrozenTrial]) -> dict[str, list[FrozenTrial]]:
    """The trials of each combination: more than one where one has failed."""
    found: dict[str, list[FrozenTrial]] = {}
    for trial in trials:
        if FIXED in trial.system_attrs:
            found.setdefault(_key(trial.system_attrs[FIXED]), []).append(trial)
    return found


def _all_failed(trials: Sequence[FrozenTrial]) -> bool:
    return all(trial.state == TrialState.FAIL for trial in trials)


def _was_cut_off(trials: Sequence[FrozenTrial]) -> bool:
    """Whether a combination deserves another try: its objective said nothing, as its worker was killed."""
    causes = [str(read_record(trial, ()).cause) for trial in trials]
    return _all_failed(trials) and len(trials) < MOST_DEATHS and causes[-1].startswith(_DEATHS)


def _key(stored: Mapping[str, Any]) -> str:
    return json.dumps(stored, sort_keys=True)
