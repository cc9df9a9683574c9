"""The default sampler, and TPE at the rungs of a study.

`RungTPESampler` does what BOHB does (Falkner et al. 2018), with multivariate TPE. Values of trials that were stopped at
different steps cannot be compared. So the sampler looks at the highest rung that has enough results, the end of the
training being the highest one, and takes each trial that has got there with its value there: complete, pruned and
running ones alike. Early in a study that is a low rung, with many results; later the final values.

`RungSampler` is that, or a Gaussian process where trials report nothing before their end.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence
from functools import cached_property
from typing import Any

import numpy as np
import optuna
from optuna.distributions import BaseDistribution
from optuna.samplers import BaseSampler, RandomSampler, TPESampler
from optuna.search_space import IntersectionSearchSpace
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState

from aimlhpo.search.asha import ASHA, ranked
from aimlhpo.search.bounded import MOST, BoundedSampler, BoundedStudy, is_infeasible

_OPEN_WITH_ONE_WORKER = 2


class RungTPESampler(BoundedSampler):
    """TPE, fitted on the highest rung that at least `enough` trials have reached; on the lowest where none has so many.

    The rungs are those of the study's pruner where that is ASHA, and otherwise learned in the same way. Trials that
    have not reached the rung are left out, but for running ones, which TPE takes for bad ones so as not to suggest them
    again. The other arguments are those of Optuna's TPESampler.
    """

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
        self.enough = enough
        self._learned = ASHA()

    def __str__(self) -> str:
        return "RungTPESampler"

    def _view(self, study: optuna.Study) -> _StudyAtRung:
        pruner = study.pruner if isinstance(study.pruner, ASHA) else self._learned
        return _StudyAtRung(study, self.most, self.enough, pruner)


class _GaussianProcessSampler(BaseSampler):
    """The expected improvement of a Gaussian process (`aimlhpo.search.gaussian_process`), with one metric.

    Trials are drawn at random until FEWEST are complete, and parameters that only some trials have always are. The
    process models complete trials, at most MOST: the best and the newest ones.
    """

    FEWEST = 4
    MOST = 100  # the time that it takes grows with their third power

    def __init__(self, seed: int | None = None) -> None:
        self._at_random = RandomSampler(seed=seed)
        self._random = np.random.RandomState(seed)
        self._space = IntersectionSearchSpace()

    def reseed_rng(self) -> None:
        self._at_random.reseed_rng()
        self._random.seed()

    def infer_relative_search_space(self, study: optuna.Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        found = self._space.calculate(study).items()
        return {name: distribution for name, distribution in found if not distribution.single()}

    def sample_relative(
        self, study: optuna.Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        complete = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
        if not search_space or len(complete) < self.FEWEST:
            return {}
        from aimlhpo.search.gaussian_process import suggest  # SciPy takes a while to load

        sign = -1.0 if study.direction == StudyDirection.MAXIMIZE else 1.0
        losses = np.array([sign * other.values[0] for other in complete])
        half = self.MOST // 2
        places = np.arange(len(complete))
        if len(complete) > self.MOST:
            places = np.union1d(places[-half:], np.argsort(losses, kind="stable")[:half])
        running = study.get_trials(deepcopy=False, states=(TrialState.RUNNING,))
        pending = [other.params for other in running if search_space.keys() <= other.params.keys()]
        finished = [complete[place].params for place in places]
        return suggest(search_space, finished, losses[places], pending, self._random)

    def sample_independent(
        self, study: optuna.Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:
        return self._at_random.sample_independent(study, trial, param_name, param_distribution)


class RungSampler(RungTPESampler):
    """A Gaussian process while no trial has reported anything before its end; otherwise TPE at a rung.

    The arguments are those of RungTPESampler; the Gaussian process begins with four complete trials. With `group`, for
    parameters that only some trials have, it is TPE alone.
    """

    def __init__(
        self,
        n_startup_trials: int = 10,
        n_ei_candidates: int = 24,
        group: bool = False,
        enough: int = 10,
        seed: int | None = None,
    ) -> None:
        super().__init__(n_startup_trials, n_ei_candidates, group, enough, seed)
        self._process = None if group else _GaussianProcessSampler(seed)

    def __str__(self) -> str:
        return "RungSampler"

    def infer_relative_search_space(self, study: optuna.Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        view = self._bounded(study, trial)
        return self._model(view).infer_relative_search_space(view, trial)

    def sample_relative(
        self, study: optuna.Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        view = self._bounded(study, trial)
        return self._model(view).sample_relative(view, trial, search_space)

    def _model(self, view: _StudyAtRung) -> BaseSampler:
        return self.inner if self._process is None or view.has_reports else self._process


class _StudyAtRung(BoundedStudy):
    """A study whose trials have the values of one rung."""

    def __init__(self, study: optuna.Study, most: int, enough: int, pruner: ASHA) -> None:
        super().__init__(study, most)
        self._enough, self._pruner = enough, pruner

    @cached_property
    def has_reports(self) -> bool:
        """Whether any trial has reported something before its end."""
        return any(trial.intermediate_values for trial in self.study.get_trials(deepcopy=False))

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
        return shown + self._as_worst(infeasible, [[values[number]] for number in kept])

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
