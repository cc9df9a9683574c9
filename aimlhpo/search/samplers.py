"""The study's sampler: how it is seeded, and what it and the pruner see of the study.

`use_strategies` gives a study its sampler and its pruner, in the agent and in its sampling process alike. `reseed`
seeds the sampler anew for each trial, so that what it draws does not depend on which agent draws it. `after_trial`
tells it of a trial that has ended, always in the storage thread, under the ledger's lock.

`for_sampler` shows a sampler paused trials as pruned ones; `one_metric` shows a pruner one of several metrics. Both are
used by the process that samples or prunes: the agent's storage thread, and the sampling process.
"""

from __future__ import annotations

import copy
import logging
import random
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import optuna
from optuna.samplers import BaseSampler, QMCSampler, RandomSampler
from optuna.storages import BaseStorage
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState

from aimlhpo.search.automatic import strategies
from aimlhpo.search.bounded import BoundedSampler, bounded
from aimlhpo.search.building import make_pruner, make_sampler
from aimlhpo.search.queues import FixedSampler, queue_of
from aimlhpo.storage.attributes import STUDY_ATTR, study_attributes
from aimlhpo.storage.base import PAUSED, ForwardingStorage, waits_at_rung
from aimlhpo.storage.retry import is_outage

if TYPE_CHECKING:
    from aimlhpo.config.schema import Config

logger = logging.getLogger(__name__)

RandomState = np.random.RandomState | np.random.Generator | random.Random


def use_strategies(study: optuna.Study, config: Config) -> None:
    """Give the study, as it was loaded, its pruner and its sampler. Raises ConfigError.

    The sampler has the study's seed: agents share what that decides, such as the order of a quasi-random sequence.
    """
    chosen = strategies(config, study)
    study.pruner = make_pruner(chosen.pruner)
    queue = queue_of(study, config)
    if queue is not None:
        study.sampler = FixedSampler(queue.refusal)
        return
    sampler = make_sampler(chosen.sampler, study_attributes(study)[STUDY_ATTR]["seed"], config.space.encode)
    study.sampler = bounded(sampler, config.optuna.sampler_sees)


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
