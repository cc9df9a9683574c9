"""The study's sampler at work: it samples the parameters of a trial, and is told when a trial has ended.

Sampling may take long, so it happens after the ledger's lock is released. `Sampling` runs in the agent's sampling
process (`sampling_child`), or in the agent's storage thread for samplers that need no process of their own.
`after_trial` always runs in the storage thread, under the ledger's lock.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import optuna
from optuna.trial import FrozenTrial, Trial, TrialState

from aimlhpo.errors import StudyFailed
from aimlhpo.search.asha import Promotion
from aimlhpo.search.building import reseed
from aimlhpo.space.search_space import SearchSpace
from aimlhpo.storage.retry import is_outage
from aimlhpo.storage.study import STUDY_ATTR
from aimlhpo.storage.views import for_sampler

if TYPE_CHECKING:
    from aimlhpo.config.schema import Config

logger = logging.getLogger(__name__)


class Sampling:
    """Samples trials that the study's storage holds as RUNNING; what is suggested is written to that storage.

    Attributes:
        space: the search space that trials are sampled from.
        promotion: ASHA by promotion, where the study has it.
    """

    def __init__(self, config: Config, study: optuna.Study) -> None:
        self._study = study
        self.space = SearchSpace.from_config(config)
        self._seed = study.user_attrs[STUDY_ATTR]["seed"]
        self.promotion = Promotion.of(study, config.optuna.reported_metric)
        # The one place to show samplers less than the whole study, or something else.
        self._shown = for_sampler(study, pauses=self.promotion is not None)

    def sample(self, trial_id: int, number: int) -> dict[str, Any]:
        """The user's values by parameter name. Raises StudyFailed where the sampler gives none."""
        try:
            reseed(self._study.sampler, self.seed_of(number))
            return self.space.suggest(self._attach(trial_id))
        except Exception as error:
            if is_outage(error):
                raise
            message = f"{self._study.sampler} cannot suggest values for trial {number}: {error!r}"
            raise StudyFailed(message) from error

    def attach_again(self, trial_id: int, number: int) -> Trial:
        """A trial that was sampled before, ready for parameters that its objective asks for.

        These are drawn with a seed of their own.
        """
        reseed(self._study.sampler, self.seed_of(number, 1))
        return self._attach(trial_id)

    def seed_of(self, number: int, *more: int) -> int:
        """A trial's own seed, from the study's and its number: the same in every attempt, another for each trial."""
        return int(np.random.SeedSequence([self._seed, number, *more]).generate_state(1)[0] % 2**31)

    def _attach(self, trial_id: int) -> Trial:
        """The RUNNING trial, to be sampled from all that the study holds now."""
        # Samplers use the trials that Optuna kept at the last `ask`, which is never called here.
        self._shown._thread_local.cached_all_trials = None
        return Trial(self._shown, trial_id)


def after_trial(study: optuna.Study, trial: FrozenTrial, state: TrialState, values: Sequence[float] | None) -> None:
    """Tell the study's sampler of a trial that has ended, with its final state and values.

    An error of the sampler is logged, so that the trial's result is not lost. Raises the errors of an outage.
    """
    # A sampler that has tried everything stops Optuna's loop, and raises where there is none. Here the budget decides.
    study._thread_local.in_optimize_loop = True
    try:
        study.sampler.after_trial(study, trial, state, values)
    except Exception as error:
        if is_outage(error):
            raise
        logger.warning("%s takes no note of trial %d: %s: %s", study.sampler, trial.number, type(error).__name__, error)
    finally:
        study._thread_local.in_optimize_loop = False
