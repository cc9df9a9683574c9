"""Whether a trial should be pruned: the pruner asked about batches of reports, by one of several metrics."""

from __future__ import annotations

import copy
from collections.abc import Iterable

import optuna
from optuna.pruners import BasePruner, HyperbandPruner, NopPruner, SuccessiveHalvingPruner
from optuna.trial import FrozenTrial

from aimlhpo.asha import ASHA
from aimlhpo.backends.views import one_metric

_BY_RUNG = (ASHA, SuccessiveHalvingPruner, HyperbandPruner)


class Pruning:
    """Asks the study's pruner.

    A pruner with rungs compares each trial once at each rung, by the report that reaches it. It is therefore asked
    about every report of a batch, not the last alone, and what it has decided stays: asked again later it would look
    to the next rung only.
    """

    def __init__(self, study: optuna.Study, metric: int | None) -> None:
        self._asked = not isinstance(study.pruner, NopPruner) and metric is not None
        self._study = one_metric(study, metric or 0)
        self._by_rung = _has_rungs(study.pruner)
        self._given_up: set[int] = set()

    def decide(self, trial_id: int, steps: Iterable[int]) -> bool:
        """Whether to give the trial up, seen from its reports at `steps`, which are stored."""
        if not self._asked or trial_id in self._given_up:
            return self._asked
        ordered = sorted(set(steps))
        if not self._by_rung:
            return self._prune(trial_id, None)
        if any(self._prune(trial_id, step) for step in ordered):
            self._given_up.add(trial_id)
        return trial_id in self._given_up

    def _prune(self, trial_id: int, step: int | None) -> bool:
        trial = self._study._storage.get_trial(trial_id)
        return self._study.pruner.prune(self._study, trial if step is None else _until(trial, step))


def _has_rungs(pruner: BasePruner) -> bool:
    return isinstance(pruner, _BY_RUNG) or isinstance(getattr(pruner, "_wrapped_pruner", None), _BY_RUNG)


def _until(trial: FrozenTrial, step: int) -> FrozenTrial:
    """The trial as it was after its report at `step`."""
    then = copy.copy(trial)
    then.intermediate_values = {at: value for at, value in trial.intermediate_values.items() if at <= step}
    return then
