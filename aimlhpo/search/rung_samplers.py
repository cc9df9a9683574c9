"""The default samplers, which model what trials have reached at rungs.

Values of trials that were stopped at different steps cannot be compared. `RungGPSampler` models all rungs, and how
trials go on from one to the next, for every other trial; it is used where all trials have the same parameters.
`RungSampler` does for all trials, and `RungGPSampler` for those between, what BOHB does (Falkner et al. 2018), with
multivariate TPE: it looks at the highest rung that has enough results, the end of the training being the highest one,
and takes each trial that has got there with its value there: complete, pruned and running ones alike. Early in a study
that is a low rung, with many results; later the final values.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import optuna
from optuna.distributions import BaseDistribution
from optuna.samplers import TPESampler
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState

from aimlhpo.search.bounded import MOST, BoundedSampler, BoundedStudy
from aimlhpo.search.rungs import ASHA, RungTable

if TYPE_CHECKING:
    from aimlhpo.search.gaussian_process import ProcessModel

Array = np.ndarray[Any, Any]

_OPEN_WITH_ONE_WORKER = 2

_MOST_AT_RANDOM = 32
"""The most trials that are sampled at random until the rungs are judged, so that no small budget is spent on them."""


class RungSampler(BoundedSampler):
    """TPE, fitted on the highest rung that at least `enough` trials have reached; on the lowest where none has so many.

    The rungs are those of the study's pruner where that is ASHA, and otherwise learned in the same way. Until three of
    the first trials have shown whether reports say something about the end, the first 32 are sampled at random. Those
    that have not reached the rung are left out, but for running ones, which TPE takes for bad ones so as not to suggest
    them again. The other arguments are those of Optuna's TPESampler.

    While no trial has reported anything before its end, it is a Gaussian process, as RungGPSampler is.
    """

    FEWEST = 4
    """Trials with a value at the lowest rung, or at the end where there are no reports, with which a process begins."""

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
        self._model: ProcessModel | None = None
        self._table = RungTable()

    def __str__(self) -> str:
        return type(self).__name__

    def reseed_rng(self) -> None:
        super().reseed_rng()
        self._random.seed()

    def sample_relative(
        self, study: optuna.Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        view = self._bounded(study, trial)
        if self._group or not self._is_modelled(view, trial.number):
            return super().sample_relative(study, trial, search_space)
        numbers, losses = view.losses(search_space)
        first = next((column for column in losses.T if not np.isnan(column).all()), losses[:0, 0])
        if not search_space or np.count_nonzero(~np.isnan(first)) < self.FEWEST:
            return {}
        if self._model is None:
            from aimlhpo.search.gaussian_process import ProcessModel  # SciPy takes a while to load

            self._model = ProcessModel()

        def configuration(row: int) -> Mapping[str, Any]:
            values: Mapping[str, Any] = view.trials[numbers[row]].params
            return values

        return self._model.suggest(search_space, configuration, losses, view.running[numbers], self._random)

    def _is_modelled(self, view: _StudyAtRung, number: int) -> bool:
        """Whether a Gaussian process suggests the trial of that number."""
        return not view.has_reports

    def _view(self, study: optuna.Study) -> _StudyAtRung:
        pruner = study.pruner if isinstance(study.pruner, ASHA) else self._learned
        return _StudyAtRung(study, self.most, self.enough, pruner, self._table)


class RungTPESampler(RungSampler):
    """RungSampler that is TPE in every case."""

    def _is_modelled(self, view: _StudyAtRung, number: int) -> bool:
        return False


class RungGPSampler(RungSampler):
    """By turns a Gaussian process for each rung and one for the end (`aimlhpo.search.gaussian_process`), and TPE.

    The process suggests what promises most at the end, from what all trials have reported at the rungs, pruned ones and
    running ones among them. The rungs are those of the study's pruner where that is ASHA, and otherwise learned in the
    same way. It begins with FEWEST trials that have reached the lowest rung, and models the best and the newest ones.
    Trials with an odd number are suggested by TPE as in RungSampler: each finds what the other misses, and both learn
    from it. Where trials report nothing, the end is all there is, and the process suggests all trials. Parameters that
    only some trials have are left to TPE; with `group`, all are.
    """

    def _is_modelled(self, view: _StudyAtRung, number: int) -> bool:
        return number % 2 == 0 or not view.has_reports


class _StudyAtRung(BoundedStudy):
    """A study whose trials have the values of one rung."""

    def __init__(self, study: optuna.Study, most: int, enough: int, pruner: ASHA, table: RungTable) -> None:
        super().__init__(study, most)
        self._enough = enough
        self.trials = study.get_trials(deepcopy=False)
        runs = TrialState.RUNNING  # looked up once, as there may be ten thousand trials
        self.running = np.array([trial.state is runs for trial in self.trials], bool)
        # With one worker, at most the trial that runs and the one to sample are open. What the running one has reported
        # by now is a matter of timing, and the same seed is to suggest the same values.
        asked = int(self.running.sum()) > _OPEN_WITH_ONE_WORKER
        ladder = pruner.ladder_of(study.study_name, self.trials, running=asked)
        table.read(study.study_name, ladder, self.trials, running=asked)
        self._table, self.has_reports = table, table.has_reports
        self._values = np.where(table.rows["failed"][:, None], math.nan, table.rows["values"])
        may_wait = len(self.trials) <= _MOST_AT_RANDOM and bool(table.rows["reached"][:, :-1].any())
        self._is_early = may_wait and not pruner.are_judged(self.trials)

    @cached_property
    def shown(self) -> Sequence[FrozenTrial]:
        if self._is_early:
            return []
        values = self._at_rung()
        numbers = np.flatnonzero(~np.isnan(values))
        if len(numbers) > self.most:
            best = numbers[np.argsort(self._sign * values[numbers], kind="stable")[: self.most // 4]]
            newest = np.setdiff1d(numbers, best)
            numbers = np.union1d(best, newest[len(best) - self.most :])
        shown = [self.trials[number] for number in np.flatnonzero(self.running & np.isnan(values))]
        for number in numbers:
            trial = copy.copy(self.trials[number])
            trial.state, trial.values = TrialState.COMPLETE, [float(values[number])]
            shown.append(trial)
        infeasible = [self.trials[number] for number in self._table.infeasible]
        shown += self._as_worst(infeasible, [[float(value)] for value in values[numbers]])
        return sorted(shown, key=lambda trial: trial.number)  # as what Optuna remembers of a search space relies on

    def losses(self, space: Iterable[str]) -> tuple[Array, Array]:
        """The numbers of the trials with all parameters of the space, and what these have reached: lower is better.

        A row for each trial: its value at each rung, from the lowest on, and at its end; NaN where it has not got.
        Infeasible trials have the worst value everywhere.
        """
        infeasible = np.isin(np.arange(len(self.trials)), self._table.infeasible)
        kept = self._table.has(space) & (infeasible | ~self._table.rows["failed"])
        losses = self._sign * self._values[kept]
        for column in losses.T:
            if infeasible.any() and not np.isnan(column).all():
                column[infeasible[kept]] = np.nanmax(column)
        return np.flatnonzero(kept), losses

    def _at_rung(self) -> Array:
        """What trials have reached at the highest rung with enough results, by trial number; or NaN."""
        counts = np.count_nonzero(~np.isnan(self._values), axis=0)
        enough = np.flatnonzero(counts >= self._enough)
        # Without enough at any rung, the one with the most, the highest of these.
        column = enough[-1] if len(enough) else len(counts) - 1 - int(np.argmax(counts[::-1]))
        return self._values[:, column]

    @cached_property
    def _sign(self) -> float:
        return -1.0 if self.study.direction == StudyDirection.MAXIMIZE else 1.0
