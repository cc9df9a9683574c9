"""Optuna's view of a trial that the ledger has claimed."""

from __future__ import annotations

import optuna
from optuna.trial import Trial


def attach(study: optuna.Study, trial_id: int) -> Trial:
    """The RUNNING trial, to be sampled from all that the study holds now."""
    # Samplers ask for the trials that Optuna read at the last `ask`, which nobody calls here.
    study._thread_local.cached_all_trials = None
    return Trial(study, trial_id)
