"""The default sampler: TPE at the rungs of a study, or a Gaussian process where trials report nothing before their end.

At the rungs it does what BOHB does (Falkner et al. 2018), with multivariate TPE. Values of trials that were stopped at
different steps cannot be compared. So the sampler looks at the highest rung that has enough results, the end of the
training being the highest one, and takes each trial that has got there with its value there: complete, pruned and
running ones alike. Early in a study that is a low rung, with many results; later the final values.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Iterable, Sequence
from functools import cached_property
from typing import Any

import numpy as np
import optuna
from optuna.distributions import BaseDistribution
from optuna.samplers import TPESampler
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState

from aimlhpo.search.asha import ASHA, ranked
from aimlhpo.search.bounded import MOST, BoundedSampler, BoundedStudy, is_infeasible

_OPEN_WITH_ONE_WORKER = 2


class RungSampler(BoundedSampler):
    """TPE, fitted on the highest rung that at least `enough` trials have reached; on the lowest where none has so many.

    The rungs are those of the study's pruner where that is ASHA, and otherwise learned in the same way. Trials that
    have not reached the rung are left out, but for running ones, which TPE takes for bad ones so as not to suggest them
    again. The other arguments are those of Optuna's TPESampler.

    While no trial has reported anything before its end, it is a Gaussian process (`aimlhpo.search.gaussian_process`),
    which begins with FEWEST complete trials, and models the best and the newest ones. Parameters that only some trials
    have are left to TPE; with `group`, all are.
    """

    FEWEST = 4
    MOST_MODELLED = 100  # the time that it takes grows with their third power

    has_process = True
    """Whether it is a Gaussian process where nothing is reported."""

    def __init__(
        self,
        n_startup_trials: int = 10,
        n_ei_candidates: int = 24,
        group: bool = False,
        enough: int = 10,
        seed: int | None = None,
    ) -> None:
        inner = TPESampler(
            n_startup_trials=n_startup_trials,
            n_ei_candidates=n_ei_candidates,
            group=group,
            seed=seed,
            multivariate=True,
            constant_liar=True,
        )
        super().__init__(inner, MOST[TPESampler])
        self.enough, self._group = enough, group
        self._learned = ASHA()
        self._random = np.random.RandomState(seed)

    def __str__(self) -> str:
        return type(self).__name__

    def reseed_rng(self) -> None:
        super().reseed_rng()
        self._random.seed()

    def sample_relative(
        self, study: optuna.Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        view = self._bounded(study, trial)
        if self._group or not self.has_process or view.has_reports:
            return super().sample_relative(study, trial, search_space)
        complete = [other for other in view.get_trials(states=(TrialState.COMPLETE,)) if _has(other, search_space)]
        if not search_space or len(complete) < self.FEWEST:
            return {}
        from aimlhpo.search.gaussian_process import suggest  # SciPy takes a while to load

        sign = -1.0 if study.direction == StudyDirection.MAXIMIZE else 1.0
        losses = np.array([sign * other.values[0] for other in complete])
        places, half = np.arange(len(complete)), self.MOST_MODELLED // 2
        if len(complete) > self.MOST_MODELLED:
            places = np.union1d(places[-half:], np.argsort(losses, kind="stable")[:half])
        finished = [complete[place].params for place in places]
        running = [other.params for other in view.get_trials(states=(TrialState.RUNNING,)) if _has(other, search_space)]
        return suggest(search_space, finished, losses[places], running[-self.MOST_MODELLED :], self._random)

    def _view(self, study: optuna.Study) -> _StudyAtRung:
        pruner = study.pruner if isinstance(study.pruner, ASHA) else self._learned
        return _StudyAtRung(study, self.most, self.enough, pruner)


class RungTPESampler(RungSampler):
    """RungSampler that is TPE in every case."""

    has_process = False


def _has(trial: FrozenTrial, space: Iterable[str]) -> bool:
    """Whether the trial has a value for every parameter of the space."""
    return all(name in trial.params for name in space)


class _StudyAtRung(BoundedStudy):
    """A study whose trials have the values of one rung."""

    def __init__(self, study: optuna.Study, most: int, enough: int, pruner: ASHA) -> None:
        super().__init__(study, most)
        self._enough, self._pruner = enough, pruner

    @cached_property
    def has_reports(self) -> bool:
        """Whether any trial that does not run has reported something before its end."""
        trials = self.study.get_trials(deepcopy=False)
        return any(trial.intermediate_values for trial in trials if trial.state != TrialState.RUNNING)

    @cached_property
    def shown(self) -> Sequence[FrozenTrial]:
        trials = self.study.get_trials(deepcopy=False)
        values = self._values(trials)
        kept = set(values)
        if len(values) > self.most:
            best = ranked(values, maximize=self.study.direction == StudyDirection.MAXIMIZE)[: self.most // 4]
            newest = sorted(values.keys() - set(best), reverse=True)
            kept = {*best, *newest[: self.most - len(best)]}
        shown = []
        for trial in trials:
            if trial.number in kept:
                trial = copy.copy(trial)
                trial.state, trial.values = TrialState.COMPLETE, [values[trial.number]]
                shown.append(trial)
            elif trial.state == TrialState.RUNNING and trial.number not in values:
                shown.append(trial)
        infeasible = [trial for trial in trials if is_infeasible(trial)]
        shown += self._as_worst(infeasible, [[values[number]] for number in kept])
        return sorted(shown, key=lambda trial: trial.number)  # as what Optuna remembers of a search space relies on

    def _values(self, trials: Sequence[FrozenTrial]) -> dict[int, float]:
        """What trials have reached at the highest rung with enough results, by trial number."""
        # With one worker, at most the trial that runs and the one to sample are open. What the running one has reported
        # by now is a matter of timing, and the same seed is to suggest the same values.
        if sum(trial.state == TrialState.RUNNING for trial in trials) <= _OPEN_WITH_ONE_WORKER:
            trials = [trial for trial in trials if trial.state != TrialState.RUNNING]
        best = {trial.number: trial.values[0] for trial in trials if trial.state == TrialState.COMPLETE}
        ladder = self._pruner.ladder_of(trials)
        for rung in reversed(ladder.resources):
            if len(best) >= self._enough:
                break
            here: dict[int, float] = {}
            for trial in trials:
                value = ladder.value_at(rung, trial.intermediate_values) if trial.intermediate_values else None
                if value is not None and not math.isnan(value) and trial.state != TrialState.FAIL:
                    here[trial.number] = value
            best = here if len(here) > len(best) else best
        return best
