"""What the study's sampler is told of trials that have ended."""

from __future__ import annotations

import logging
from collections.abc import Sequence

import optuna
from optuna.trial import FrozenTrial, TrialState

from aimlhpo.patience import is_outage

logger = logging.getLogger(__name__)


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
