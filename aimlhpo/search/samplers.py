"""The study's sampler: how it is seeded, and what it and the pruner see of the study.

Sampling takes as long at 10,000 trials as at 1,000: samplers that model the study (TPE and Gaussian processes) are
shown a bounded part of it: all trials that are open, the best finished ones, and the newest of the others. TPE splits
the finished trials into at most 25 good ones and the rest, and gives old ones of the rest little weight, so it loses
little. All other samplers (genetic algorithms, CMA-ES, grids, quasi-random sequences) see everything.

`sampler_of` makes the sampler of a configuration, in the agent and in its sampling process alike. `reseed` seeds it
anew for each trial, so that what it draws does not depend on which agent draws it. `after_trial` tells it of a trial
that has ended, always in the storage thread, under the ledger's lock.

`for_sampler` shows a sampler paused trials as pruned ones; `one_metric` shows a pruner one of several metrics. Both are
used by the process that samples or prunes: the agent's storage thread, and the sampling process.
"""

from __future__ import annotations

import copy
import logging
import random
from collections.abc import Container, Iterator, Sequence
from functools import cached_property
from itertools import islice
from typing import TYPE_CHECKING, Any

import numpy as np
import optuna
from optuna.distributions import BaseDistribution
from optuna.samplers import BaseSampler, GPSampler, PartialFixedSampler, QMCSampler, RandomSampler, TPESampler
from optuna.storages import BaseStorage
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState

from aimlhpo.search.building import make_sampler
from aimlhpo.search.grid import GridSampler
from aimlhpo.space.constraints import holds
from aimlhpo.space.grid import grid_of
from aimlhpo.storage.base import PAUSED, ForwardingStorage, waits_at_rung
from aimlhpo.storage.retry import is_outage

if TYPE_CHECKING:
    from aimlhpo.config.schema import Config

logger = logging.getLogger(__name__)

ALL = "all"
MOST = {TPESampler: 1000, GPSampler: 300}
"""The samplers that see a bounded part, and how many finished trials that is where the configuration does not say."""

RandomState = np.random.RandomState | np.random.Generator | random.Random
_BEST_SHARE = 0.25
_FINISHED = (TrialState.COMPLETE, TrialState.PRUNED)
_OPEN = (TrialState.RUNNING, TrialState.WAITING)


def sampler_of(config: Config, seed: int | None) -> BaseSampler:
    """The sampler for a study with this configuration. Raises ConfigError.

    `seed` is the study's: agents share what it decides, such as the order of a grid or a quasi-random sequence.
    """
    if grid_of(config.space) is not None:
        return GridSampler()
    sampler = make_sampler(config.optuna.sampler, seed, config.space.encode)
    return bounded(sampler, config.optuna.sampler_sees)


def bounded(sampler: BaseSampler, sees: int | str | None = None) -> BaseSampler:
    """The sampler with a bounded view of the study if it is in MOST, otherwise the sampler itself.

    `sees` is the number of finished trials that it is shown, or "all"; None stands for the number in MOST.
    """
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
        self._shown: tuple[int, _BoundedStudy] | None = None  # a trial's number, and what is shown for it

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
            self._shown = trial.number, _BoundedStudy(study, self.most)
        return self._shown[1]


class _BoundedStudy:
    """A study with no more than `most` finished trials, as of the first time that its trials are asked for.

    Everything else is passed on to the study itself.
    """

    def __init__(self, study: optuna.Study, most: int) -> None:
        self._study, self._most = study, most

    def __getattr__(self, name: str) -> Any:
        return getattr(self._study, name)

    def get_trials(
        self, deepcopy: bool = True, states: Container[TrialState] | None = None, use_cache: bool = False
    ) -> list[FrozenTrial]:
        return [trial for trial in self._trials if states is None or trial.state in states]

    _get_trials = get_trials  # what Optuna's own samplers call

    @cached_property
    def _trials(self) -> Sequence[FrozenTrial]:
        trials = self._study._get_trials(deepcopy=False, states=(*_OPEN, *_FINISHED))
        finished = [trial for trial in trials if trial.state in _FINISHED]
        chosen = choose(finished, self._study.directions, self._most)
        return sorted([*chosen, *(trial for trial in trials if trial.state in _OPEN)], key=lambda trial: trial.number)


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


def reseed(sampler: optuna.samplers.BaseSampler, seed: int) -> None:
    """Seed every random state inside a sampler, nested samplers included, so that `seed` decides what it draws next.

    A sampler whose random states cannot be found reseeds itself, so that agents at least do not draw the same values.
    """
    states = list(_random_states(sampler, type(sampler).__module__.partition(".")[0], set()))
    for index, state in enumerate(states):
        own_seed = int(np.random.SeedSequence([seed, index]).generate_state(1)[0])
        if isinstance(state, np.random.Generator):
            state.bit_generator.state = type(state.bit_generator)(own_seed).state
        else:
            state.seed(own_seed)
    if not states:
        sampler.reseed_rng()


def _random_states(value: Any, package: str, seen: set[int]) -> Iterator[RandomState]:
    """The random states below an object, each once, in the order of its attributes.

    The search goes through dictionaries, lists, samplers, the parts of Optuna's samplers, and the objects of `package`,
    where the sampler itself comes from another package than Optuna.
    """
    if id(value) in seen:
        return
    seen.add(id(value))
    if isinstance(value, RandomState):
        yield value
        return
    module = type(value).__module__
    of_optuna = module.startswith("optuna.samplers")
    parts: list[Any] = []
    if isinstance(value, dict):
        parts = list(value.values())
    elif isinstance(value, list | tuple):
        parts = list(value)
    elif of_optuna and isinstance(getattr(value, "rng", None), np.random.RandomState):
        parts = [value.rng]  # Optuna makes this random state when it is first asked for
    elif hasattr(value, "__dict__"):
        own = package not in ("optuna", "aimlhpo", "builtins") and module.partition(".")[0] == package
        if of_optuna or own or isinstance(value, optuna.samplers.BaseSampler):
            parts = list(vars(value).values())
    for part in parts:
        yield from _random_states(part, package, seen)


def after_trial(study: optuna.Study, trial: FrozenTrial, state: TrialState, values: Sequence[float] | None) -> None:
    """Tell the study's sampler of a trial that has ended, with its final state and values.

    An error of the sampler is logged, so that the trial's result is not lost. Raises the errors of an outage.
    """
    # A sampler that has tried everything stops Optuna's loop, and raises where there is none. Here the budget decides.
    study._thread_local.in_optimize_loop = True
    try:
        study.sampler.after_trial(study, trial, state, values)
    except Exception as error:
        if is_outage(error):
            raise
        logger.warning("%s takes no note of trial %d: %s: %s", study.sampler, trial.number, type(error).__name__, error)
    finally:
        study._thread_local.in_optimize_loop = False


def needs_process(sampler: BaseSampler) -> bool:
    """Whether trials are sampled in a process of their own.

    This is so for the samplers of Optuna that use the study's history. Samplers of other packages run in the agent, as
    they may learn from `after_trial`, which is called there.
    """
    sampler = sampler.inner if isinstance(sampler, BoundedSampler) else sampler
    of_optuna = type(sampler).__module__.startswith("optuna.samplers")
    return of_optuna and not isinstance(sampler, RandomSampler | QMCSampler)


# --- the study as samplers and pruners see it ---


def one_metric(study: optuna.Study, position: int) -> optuna.Study:
    """The study with its metric at `position` alone."""
    if len(study.directions) == 1:
        return study
    return _with_storage(study, _OneMetric(study._storage, position))


def for_sampler(study: optuna.Study, *, pauses: bool) -> optuna.Study:
    """The study as every sampler takes it; `pauses`: whether its trials pause to be promoted."""
    directions = len(study.directions)
    return _with_storage(study, _ForSampler(study._storage, directions)) if pauses or directions > 1 else study


def _with_storage(study: optuna.Study, storage: BaseStorage) -> optuna.Study:
    return optuna.Study(study.study_name, storage, sampler=study.sampler, pruner=study.pruner)


def last_report(trial: FrozenTrial, directions: int) -> list[float] | None:
    """A pruned trial's value, as in Optuna: its last report, where that is a number and there is one metric."""
    if directions != 1 or not trial.intermediate_values:
        return None
    value = trial.intermediate_values[max(trial.intermediate_values)]
    return None if value != value else [value]


class _OneMetric(ForwardingStorage):  # type: ignore[valid-type, misc]
    """Has one direction, and one value for each trial: those of one of several metrics."""

    def __init__(self, inner: BaseStorage, position: int) -> None:
        self.inner, self._position = inner, position

    def get_study_directions(self, study_id: int) -> list[StudyDirection]:
        return [self.inner.get_study_directions(study_id)[self._position]]

    def get_best_trial(self, study_id: int) -> FrozenTrial:
        """Raises ValueError where no trial is complete."""
        complete = self.get_all_trials(study_id, deepcopy=False, states=(TrialState.COMPLETE,))
        if not complete:
            raise ValueError("no trials are complete yet")
        maximize = self.get_study_directions(study_id)[0] == StudyDirection.MAXIMIZE
        return (max if maximize else min)(complete, key=lambda trial: trial.values[0])

    def get_all_trials(self, study_id: int, deepcopy: bool = True, states: Any = None) -> list[FrozenTrial]:
        seen = []
        for trial in self.inner.get_all_trials(study_id, deepcopy=deepcopy, states=states):
            if trial.values is not None:
                trial = copy.copy(trial)
                trial.values = [trial.values[self._position]]
            seen.append(trial)
        return seen


class _ForSampler(ForwardingStorage):  # type: ignore[valid-type, misc]
    """Paused trials are pruned ones, so that samplers learn from them before the study ends.

    With several metrics, pruned trials have no reports: TPE would rank them by the study's one direction.
    """

    def __init__(self, inner: BaseStorage, directions: int) -> None:
        self.inner, self._directions = inner, directions

    def get_all_trials(self, study_id: int, deepcopy: bool = True, states: Any = None) -> list[FrozenTrial]:
        seen = []
        for trial in self.inner.get_all_trials(study_id, deepcopy=deepcopy):
            if waits_at_rung(trial.state, trial.system_attrs.get(PAUSED)):
                trial = copy.copy(trial)
                trial.state, trial.values = TrialState.PRUNED, last_report(trial, self._directions)
            if trial.state == TrialState.PRUNED and self._directions > 1:
                trial = copy.copy(trial)
                trial.intermediate_values = {}
            if states is None or trial.state in states:
                seen.append(trial)
        return seen
