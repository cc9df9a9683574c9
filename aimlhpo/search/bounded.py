"""What samplers that model the study see of it: a bounded part.

So sampling takes as long at 10,000 trials as at 1,000. These samplers are shown all trials that are open, the best
finished ones, and the newest of the others. TPE splits the finished trials into at most 25 good ones and the rest, and
gives old ones of the rest little weight, so it loses little. All other samplers (genetic algorithms, CMA-ES, grids,
quasi-random sequences) see everything.

Failed trials that say something about their configuration (it needs more memory or time than there is) are shown as
complete ones with the worst value, so that the sampler keeps away from them.
"""

from __future__ import annotations

import copy
import sys
from collections.abc import Container, Sequence
from functools import cached_property
from itertools import islice
from typing import Any

import numpy as np
import optuna
from optuna.distributions import BaseDistribution
from optuna.samplers import BaseSampler, GPSampler, PartialFixedSampler, TPESampler
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState

from aimlhpo.space.constraints import holds
from aimlhpo.storage.attributes import INFEASIBLE, record_of

ALL = "all"
MOST = {TPESampler: 1000, GPSampler: 300}
"""The samplers that see a bounded part, and how many finished trials that is where the configuration does not say."""

_BEST_SHARE = 0.25
_INFEASIBLE_SHARE = 0.25
_FINISHED = (TrialState.COMPLETE, TrialState.PRUNED)
_OPEN = (TrialState.RUNNING, TrialState.WAITING)


def bounded(sampler: BaseSampler, sees: int | str | None = None) -> BaseSampler:
    """The sampler with a bounded view of the study if it is in MOST, otherwise the sampler itself.

    `sees` is the number of finished trials that it is shown, or "all"; None stands for the number in MOST.
    """
    if isinstance(sampler, PartialFixedSampler):
        sampler._base_sampler = bounded(sampler._base_sampler, sees)
    if isinstance(sampler, BoundedSampler) and sees is not None:
        sampler.most = sees if isinstance(sees, int) else sys.maxsize
    most = MOST.get(type(sampler)) if sees is None else sees
    if type(sampler) not in MOST or not isinstance(most, int):
        return sampler
    return BoundedSampler(sampler, most)


class BoundedSampler(BaseSampler):
    """Shows `inner` no more than `most` finished trials, the same ones for all parameters of a trial."""

    def __init__(self, inner: BaseSampler, most: int) -> None:
        self.inner, self.most = inner, most
        self._shown: tuple[int, BoundedStudy] | None = None  # a trial's number, and what is shown for it

    def __str__(self) -> str:
        return str(self.inner)

    def infer_relative_search_space(self, study: optuna.Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        return self.inner.infer_relative_search_space(self._bounded(study, trial), trial)

    def sample_relative(
        self, study: optuna.Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        return self.inner.sample_relative(self._bounded(study, trial), trial, search_space)

    def sample_independent(
        self, study: optuna.Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:
        return self.inner.sample_independent(self._bounded(study, trial), trial, param_name, param_distribution)

    def before_trial(self, study: optuna.Study, trial: FrozenTrial) -> None:
        self._shown = None
        self.inner.before_trial(study, trial)

    def after_trial(
        self, study: optuna.Study, trial: FrozenTrial, state: TrialState, values: Sequence[float] | None
    ) -> None:
        self.inner.after_trial(study, trial, state, values)

    def reseed_rng(self) -> None:
        self.inner.reseed_rng()

    def _bounded(self, study: optuna.Study, trial: FrozenTrial) -> Any:
        if self._shown is None or self._shown[0] != trial.number:
            self._shown = trial.number, self._view(study)
        return self._shown[1]

    def _view(self, study: optuna.Study) -> BoundedStudy:
        return BoundedStudy(study, self.most)


class BoundedStudy:
    """A study with no more than `most` finished trials, as of the first time that its trials are asked for.

    Everything else is passed on to the study itself.
    """

    def __init__(self, study: optuna.Study, most: int) -> None:
        self.study, self.most = study, most

    def __getattr__(self, name: str) -> Any:
        return getattr(self.study, name)

    def get_trials(
        self, deepcopy: bool = True, states: Container[TrialState] | None = None, use_cache: bool = False
    ) -> list[FrozenTrial]:
        return [trial for trial in self.shown if states is None or trial.state in states]

    _get_trials = get_trials  # what Optuna's own samplers call

    @cached_property
    def shown(self) -> Sequence[FrozenTrial]:
        trials = self.study._get_trials(deepcopy=False)
        finished = [trial for trial in trials if trial.state in _FINISHED]
        chosen = choose(finished, self.study.directions, self.most)
        values = [trial.values for trial in chosen if trial.state == TrialState.COMPLETE]
        infeasible = self._as_worst([trial for trial in trials if is_infeasible(trial)], values)
        still_open = (trial for trial in trials if trial.state in _OPEN)
        return sorted([*chosen, *infeasible, *still_open], key=lambda trial: trial.number)

    def _as_worst(self, infeasible: Sequence[FrozenTrial], values: Sequence[Sequence[float]]) -> list[FrozenTrial]:
        """The newest of the infeasible trials as complete ones, as bad as the worst of the values; none without any."""
        if not values:
            return []
        ends = zip(*values, strict=True)
        worst = [
            min(column) if direction == StudyDirection.MAXIMIZE else max(column)
            for column, direction in zip(ends, self.study.directions, strict=True)
        ]
        shown = []
        for trial in infeasible[-max(1, int(self.most * _INFEASIBLE_SHARE)) :]:
            trial = copy.copy(trial)
            trial.state, trial.values = TrialState.COMPLETE, list(worst)
            shown.append(trial)
        return shown


def is_infeasible(trial: FrozenTrial) -> bool:
    """Whether a trial has failed for what its configuration needs, as it is noted with `on_oom: learn`."""
    return trial.state == TrialState.FAIL and bool(trial.params) and bool(record_of(trial).get(INFEASIBLE))


def choose(finished: Sequence[FrozenTrial], directions: Sequence[StudyDirection], most: int) -> Sequence[FrozenTrial]:
    """`most` of the finished trials, by number: the best COMPLETE ones, and the newest of the others.

    The best are a quarter of them, and satisfy every constraint. With several metrics, the best are those of the first
    Pareto fronts.
    """
    if len(finished) <= most:
        return finished
    wanted = max(1, int(most * _BEST_SHARE))
    complete = [trial for trial in finished if trial.state == TrialState.COMPLETE]
    signs = np.array([-1.0 if direction == StudyDirection.MAXIMIZE else 1.0 for direction in directions])
    losses = np.array([trial.values for trial in complete]).reshape(len(complete), len(directions)) * signs
    ranks = losses[:, 0] if len(directions) == 1 else pareto_ranks(losses, wanted)
    best_first = (complete[place] for place in np.argsort(ranks, kind="stable"))
    feasible = (trial for trial in best_first if holds(trial.constraints))
    best = list(islice(feasible, wanted))
    kept = {trial.number for trial in best}
    newest = (trial for trial in reversed(finished) if trial.number not in kept)
    return sorted([*best, *islice(newest, most - len(best))], key=lambda trial: trial.number)


def pareto_ranks(losses: np.ndarray[Any, Any], wanted: int) -> np.ndarray[Any, Any]:
    """The Pareto front of each row, 0 for those that no other row is better than in all columns.

    Fronts are counted until they hold `wanted` different rows or more; all rows after these have the next number.
    """
    # Sorted by their first column, then by the others, no row can be dominated by one that comes later.
    rows, place_of = np.unique(losses, axis=0, return_inverse=True)
    ranks = np.zeros(len(rows), dtype=int)
    left = np.arange(len(rows))
    rank = 0
    while len(left) and len(rows) - len(left) < wanted:
        if losses.shape[1] == 2:
            least = np.minimum.accumulate(rows[left, 1])
            front = left[np.append(True, rows[left[1:], 1] < least[:-1])]
        else:
            candidates, firsts = left, []
            while len(candidates):
                firsts.append(candidates[0])
                candidates = candidates[(rows[candidates, 1:] < rows[candidates[0], 1:]).any(axis=1)]
            front = np.array(firsts)
        ranks[front] = rank
        left = np.setdiff1d(left, front, assume_unique=True)
        rank += 1
    ranks[left] = rank
    return ranks[place_of.reshape(-1)]
