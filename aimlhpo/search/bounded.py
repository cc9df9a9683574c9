"""Samplers that model the study see a bounded part of it, so that sampling takes as long at 10,000 trials as at 1,000.

What they see: all trials that are open, the best finished ones, and of the others the newest. TPE splits the finished
trials into at most 25 good ones and the rest, and gives old ones of the rest little weight.
Samplers with another idea of the past (genetic algorithms, CMA-ES, grids, quasi-random sequences) see everything.
The study's sampler: a grid's own, or as the configuration says.
"""

from __future__ import annotations

from collections.abc import Container, Iterable, Sequence
from functools import cached_property
from itertools import islice
from typing import TYPE_CHECKING, Any

import numpy as np
import optuna
from optuna.distributions import BaseDistribution
from optuna.samplers import BaseSampler, GPSampler, PartialFixedSampler, TPESampler
from optuna.study import StudyDirection
from optuna.study._multi_objective import _fast_non_domination_rank
from optuna.trial import FrozenTrial, TrialState

from aimlhpo.search.building import make_sampler
from aimlhpo.search.grid import GridSampler, declared_grid

if TYPE_CHECKING:
    from optuna.samplers import BaseSampler

    from aimlhpo.config.schema import Config

ALL = "all"
MOST = {TPESampler: 1000, GPSampler: 300}
"""Finished trials that a sampler sees where the configuration does not say; others see all."""

_BEST_SHARE = 0.25
_FINISHED = (TrialState.COMPLETE, TrialState.PRUNED)
_OPEN = (TrialState.RUNNING, TrialState.WAITING)


def bounded(sampler: BaseSampler, sees: int | str | None = None) -> BaseSampler:
    """The sampler with a bounded view of the study, if it is one that models it; `sees` is a number, or "all"."""
    if isinstance(sampler, PartialFixedSampler):
        sampler._base_sampler = bounded(sampler._base_sampler, sees)
    most = MOST.get(type(sampler)) if sees is None else sees
    if type(sampler) not in MOST or not isinstance(most, int):
        return sampler
    return BoundedSampler(sampler, most)


class BoundedSampler(BaseSampler):
    """Shows `inner` no more than `most` finished trials, the same ones for all parameters of a trial."""

    def __init__(self, inner: BaseSampler, most: int) -> None:
        self.inner, self.most = inner, most
        self._view: tuple[int, _View] | None = None

    def __str__(self) -> str:
        return str(self.inner)

    def infer_relative_search_space(self, study: optuna.Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        return self.inner.infer_relative_search_space(self._seen(study, trial), trial)

    def sample_relative(
        self, study: optuna.Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        return self.inner.sample_relative(self._seen(study, trial), trial, search_space)

    def sample_independent(
        self, study: optuna.Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:
        return self.inner.sample_independent(self._seen(study, trial), trial, param_name, param_distribution)

    def before_trial(self, study: optuna.Study, trial: FrozenTrial) -> None:
        self._view = None
        self.inner.before_trial(study, trial)

    def after_trial(
        self, study: optuna.Study, trial: FrozenTrial, state: TrialState, values: Sequence[float] | None
    ) -> None:
        self.inner.after_trial(study, trial, state, values)

    def reseed_rng(self) -> None:
        self.inner.reseed_rng()

    def _seen(self, study: optuna.Study, trial: FrozenTrial) -> Any:
        if self._view is None or self._view[0] != trial.number:
            self._view = trial.number, _View(study, self.most)
        return self._view[1]


class _View:
    """A study as it is when it is first looked at, with `most` finished trials; in all else the study itself."""

    def __init__(self, study: optuna.Study, most: int) -> None:
        self._study, self._most = study, most

    def __getattr__(self, name: str) -> Any:
        return getattr(self._study, name)

    def get_trials(self, deepcopy: bool = True, states: Container[TrialState] | None = None) -> list[FrozenTrial]:
        return self._get_trials(deepcopy, states)

    def _get_trials(
        self, deepcopy: bool = True, states: Container[TrialState] | None = None, use_cache: bool = False
    ) -> list[FrozenTrial]:
        return [trial for trial in self._seen if states is None or trial.state in states]

    @cached_property
    def _seen(self) -> Sequence[FrozenTrial]:
        trials = self._study._get_trials(deepcopy=False, states=(*_OPEN, *_FINISHED))
        finished = [trial for trial in trials if trial.state in _FINISHED]
        if len(finished) <= self._most:
            return trials
        chosen = choose(finished, self._study.directions, self._most)
        return sorted([*chosen, *(trial for trial in trials if trial.state in _OPEN)], key=lambda trial: trial.number)


def choose(finished: Sequence[FrozenTrial], directions: Sequence[StudyDirection], most: int) -> Sequence[FrozenTrial]:
    """The best COMPLETE ones among finished trials, and the newest: `most` of them, in their order."""
    if len(finished) <= most:
        return finished
    good = _best([trial for trial in finished if trial.state == TrialState.COMPLETE], directions, _share(most))
    kept = {trial.number for trial in good}
    newest = (trial for trial in reversed(finished) if trial.number not in kept)
    return sorted([*good, *islice(newest, most - len(good))], key=lambda trial: trial.number)


def _share(most: int) -> int:
    return max(1, int(most * _BEST_SHARE))


def _best(trials: Sequence[FrozenTrial], directions: Sequence[StudyDirection], number: int) -> list[FrozenTrial]:
    """The best trials, those that keep all constraints before those that do not."""
    ordered = _by_value(trials, directions[0]) if len(directions) == 1 else _by_rank(trials, directions, number)
    found: list[FrozenTrial] = []
    for trial in ordered:
        if len(found) == number:
            break
        if all(value <= 0 for value in trial.constraints.values()):
            found.append(trial)
    return found


def _by_value(trials: Sequence[FrozenTrial], direction: StudyDirection) -> Iterable[FrozenTrial]:
    sign = -1.0 if direction == StudyDirection.MAXIMIZE else 1.0
    return sorted(trials, key=lambda trial: sign * (trial.value or 0.0))


def _by_rank(trials: Sequence[FrozenTrial], directions: Sequence[StudyDirection], number: int) -> Iterable[FrozenTrial]:
    """The first fronts of those that no other trial beats, and the rest, which has no rank of its own."""
    signs = [-1.0 if direction == StudyDirection.MAXIMIZE else 1.0 for direction in directions]
    ranks = _fast_non_domination_rank(np.array([trial.values for trial in trials]) * signs, n_below=number)
    return [trials[place] for place in np.argsort(ranks, kind="stable")]


def sampler_of(config: Config, seed: int | None) -> BaseSampler:
    """The sampler for a study with that configuration. Raises ConfigError.

    `seed` is the study's: agents share what it decides, such as the order of a grid or a quasi-random sequence.
    """
    if declared_grid(config) is not None:
        return GridSampler()
    sampler = make_sampler(config.optuna.sampler, seed, config.space.encode)
    return bounded(sampler, config.optuna.sampler_sees)
