"""Studies with trials of every kind that a reader may meet."""

from __future__ import annotations

import copy
import math

import optuna
from optuna.storages import BaseStorage
from optuna.trial import FrozenTrial, TrialState


def make_trials(storage: BaseStorage) -> optuna.Study:
    """Trials of every kind that a reader may meet."""
    study = optuna.create_study(study_name="s", storage=storage, directions=["minimize", "maximize"])
    study.enqueue_trial({"x": 0.25})
    for number in range(7):
        trial = study.ask()
        trial.suggest_categorical("kind", ["a", None, 3])
        trial.suggest_int("layers", 1, 8)
        trial.suggest_float("x", 1e-3, 1.0, log=True)
        trial.set_user_attr("aimlhpo", {"seconds": 1.5, "metrics": {"a": math.nan}})
        for step, value in enumerate((0.5, math.inf, -math.inf, float(number))):
            storage.set_trial_intermediate_value(trial._trial_id, 10 * step, value)
        if number < 5:
            study.tell(trial, [1.0 / (number + 1), math.inf], state=TrialState.COMPLETE)
        elif number == 5:
            study.tell(trial, state=TrialState.FAIL)
    return study


def as_text(trial: FrozenTrial) -> dict[str, str]:
    """Everything of a trial, such that nan equals nan."""
    plain = copy.deepcopy(trial)
    return {
        name: repr(sorted(value.items()) if isinstance(value, dict) else value) for name, value in vars(plain).items()
    }
