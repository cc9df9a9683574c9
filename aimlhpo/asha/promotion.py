"""ASHA by promotion: trials that pause at a rung, and which of them goes on."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import optuna
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial

from aimlhpo.asha.pruner import ASHA
from aimlhpo.asha.rungs import ranked
from aimlhpo.backends.backend import PAUSED, OpenTrial
from aimlhpo.protocol import Pause


class Promotion:
    """Decides from what the storage holds; the caller holds the ledger's lock."""

    def __init__(self, study: optuna.Study, pruner: ASHA, metric: int) -> None:
        self._study, self._pruner, self._ladder = study, pruner, pruner.ladder
        self._maximize = study.directions[metric] == StudyDirection.MAXIMIZE

    @classmethod
    def of(cls, study: optuna.Study, metric: int | None) -> Promotion | None:
        """The promotion of a study whose pruner is ASHA with mode promotion; `metric` is the one it reports."""
        pruner = study.pruner
        if not isinstance(pruner, ASHA) or pruner.mode != "promotion" or metric is None:
            return None
        return cls(study, pruner, metric)

    def next(self, paused: Sequence[OpenTrial]) -> OpenTrial | None:
        """The paused trial that goes on: among the best of the highest rung that has one to promote."""
        if not paused:
            return None
        trials = self._study.get_trials(deepcopy=False)
        for rung in sorted({trial.rung for trial in paused if trial.rung is not None}, reverse=True):
            here = {trial.number: trial for trial in paused if trial.rung == rung}
            promoted = next((number for number in self._promotable(rung, trials) if number in here), None)
            if promoted is not None:
                return here[promoted]
        return None

    def _promotable(self, rung: int, trials: Iterable[FrozenTrial]) -> list[int]:
        """The best 1/reduction_factor of those that reached a rung, of each bracket, best first."""
        brackets: dict[int, dict[int, float]] = {}
        for trial in trials:
            value = self._ladder.value_at(rung, trial.intermediate_values)
            if value is not None and value == value:
                bracket = self._ladder.bracket(self._study.study_name, trial.number)
                brackets.setdefault(bracket, {})[trial.number] = value
        return [number for values in brackets.values() for number in self._best(values)]

    def _best(self, values: dict[int, float]) -> list[int]:
        return ranked(values, maximize=self._maximize)[: len(values) // self._ladder.reduction_factor]

    def pause(self, trial: FrozenTrial) -> Pause | None:
        """The rung after the one that a trial has last paused at; None on its way to the end."""
        below = (trial.system_attrs.get(PAUSED) or {}).get("rung", 0)
        rungs = self._ladder.rungs(self._ladder.bracket(self._study.study_name, trial.number))
        ahead = (rung for rung in rungs if rung > below)
        return next((Pause(rung, self._ladder.step(rung)) for rung in ahead), None)
