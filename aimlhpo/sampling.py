"""Optuna's view of a trial that the ledger has claimed."""

from __future__ import annotations

import logging
from collections.abc import Sequence

import optuna
from optuna.trial import FrozenTrial, Trial, TrialState

from aimlhpo.patience import is_outage

logger = logging.getLogger(__name__)


def attach(study: optuna.Study, trial_id: int) -> Trial:
    """The RUNNING trial, to be sampled from all that the study holds now."""
    # Samplers ask for the trials that Optuna read at the last `ask`, which nobody calls here.
    study._thread_local.cached_all_trials = None
    return Trial(study, trial_id)


def after_trial(study: optuna.Study, trial: FrozenTrial, state: TrialState, values: Sequence[float] | None) -> None:
    """Tell the sampler of a trial that has ended. A result is not lost where the sampler cannot take it."""
    # Samplers that have tried everything stop Optuna's loop; without one Optuna raises. The budget decides here.
    study._thread_local.in_optimize_loop = True
    try:
        study.sampler.after_trial(study, trial, state, values)
    except Exception as error:
        if is_outage(error):
            raise
        logger.warning("%s takes no note of trial %d: %s: %s", study.sampler, trial.number, type(error).__name__, error)
    finally:
        study._thread_local.in_optimize_loop = False
