"""ASHA as a pruner of Optuna."""

from __future__ import annotations

from collections.abc import Iterator

import optuna
from optuna.pruners import BasePruner
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial

from aimlhpo.asha.rungs import Ladder, ranked
from aimlhpo.errors import ConfigError, Problem
from aimlhpo.suggestions import did_you_mean, listing, show

MODES = ("stopping", "promotion")


class ASHA(BasePruner):
    """Asynchronous successive halving; with several brackets, asynchronous Hyperband.

    Trials are compared when they have trained for `min_resource` epochs (or whatever their steps are), for
    `reduction_factor` times as many, and so on up to `max_resource`; at each of these rungs the best
    1/`reduction_factor` go on. With mode "stopping", a trial that is not among them when it gets there is pruned.
    With mode "promotion", every trial pauses at a rung and goes on if it is, or comes to be, among them: the ledger
    decides that, and this pruner prunes nothing. Unlike Optuna's SuccessiveHalvingPruner, it counts resources from 1
    where reports count from 0 (`first_step`).
    """

    def __init__(
        self,
        max_resource: int,
        min_resource: int = 1,
        reduction_factor: int = 3,
        brackets: int = 1,
        mode: str = "stopping",
        first_step: int = 0,
    ) -> None:
        """Raises ConfigError, with all problems, for arguments that make no rungs."""
        self.ladder = Ladder(min_resource, max_resource, reduction_factor, brackets, first_step)
        self.mode = mode
        problems = list(_problems(self.ladder, mode))
        if problems:
            raise ConfigError(problems)

    def prune(self, study: optuna.Study, trial: FrozenTrial) -> bool:
        """Whether the trial lags at the rung that its last report has reached."""
        rung = None if self.mode == "promotion" else self._reached(study, trial)
        if rung is None:
            return False
        values = self.values_at(rung, study, trial.number)
        values[trial.number] = trial.intermediate_values[max(trial.intermediate_values)]
        best = ranked(values, maximize=study.direction == StudyDirection.MAXIMIZE)
        return trial.number not in best[: max(1, len(best) // self.ladder.reduction_factor)]

    def _reached(self, study: optuna.Study, trial: FrozenTrial) -> int | None:
        """The highest rung that the last report is the first to have reached."""
        reports = trial.intermediate_values
        last = max(reports, default=None)
        before = max((step for step in reports if step != last), default=-1)
        rungs = self.ladder.rungs(self.ladder.bracket(study.study_name, trial.number))
        crossed = [rung for rung in rungs if last is not None and before < self.ladder.step(rung) <= last]
        return crossed[-1] if crossed else None

    def values_at(self, rung: int, study: optuna.Study, number: int) -> dict[int, float]:
        """What every trial in the bracket of trial `number` reported at a rung, by number."""
        bracket = self.ladder.bracket(study.study_name, number)
        values = {}
        for trial in study.get_trials(deepcopy=False):
            value = self.ladder.value_at(rung, trial.intermediate_values)
            if value is not None and self.ladder.bracket(study.study_name, trial.number) == bracket:
                values[trial.number] = value
        return values


def _problems(ladder: Ladder, mode: str) -> Iterator[Problem]:
    """Where a problem stands is the argument's name."""
    if mode not in MODES:
        yield Problem("mode", f"{show(mode)} is no mode of ASHA", listing(MODES), did_you_mean(mode, MODES))
    if ladder.first_step not in (0, 1):
        yield Problem("first_step", f"{ladder.first_step} is not a first step", "0, or 1 where reports count from one")
    if ladder.reduction_factor < 2:
        yield Problem("reduction_factor", f"{ladder.reduction_factor} is too small", "a whole number, 2 or more")
    if ladder.min_resource < 1:
        yield Problem("min_resource", f"{ladder.min_resource} is too small", "a whole number, 1 or more")
    elif ladder.max_resource <= ladder.min_resource:
        found = f"{ladder.max_resource} is not more than min_resource, {ladder.min_resource}"
        yield Problem("max_resource", found, "the number of epochs, or whatever trials report by, of a whole training")
    elif ladder.reduction_factor >= 2 and not 1 <= ladder.brackets <= ladder.most_brackets:
        rungs = listing(str(rung) for rung in ladder.resources)
        legal = f"1 to {ladder.most_brackets}: there are rungs at {rungs}"
        yield Problem("brackets", f"{ladder.brackets} is not possible", legal)
