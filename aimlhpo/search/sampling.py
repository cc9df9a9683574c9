"""The parameters of a trial: suggested by the study's sampler, with the trial's own seed.
What the study's sampler is told of trials that have ended.
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
from aimlhpo.storage.retry import is_outage
from aimlhpo.storage.study import STUDY_ATTR
from aimlhpo.storage.views import for_sampler

if TYPE_CHECKING:
    from aimlhpo.config.schema import Config


class Sampling:
    """Samples trials that the study's storage holds as this agent's; what is suggested is written to that storage."""

    def __init__(self, config: Config, study: optuna.Study) -> None:
        self._study = study
        self.space = config.space
        self._seed = study.user_attrs[STUDY_ATTR]["seed"]
        self.promotion = Promotion.of(study, config.optuna.reported_metric)
        self._sampled = make_study_for_sampling(study, pauses=self.promotion is not None)

    def sample(self, trial_id: int, number: int) -> dict[str, Any]:
        """The user's values by study name. Raises StudyFailed where the sampler gives none."""
        try:
            reseed(self._study.sampler, self.seed_of(number))
            return self.space.suggest(attach(self._sampled, trial_id))
        except Exception as error:
            if is_outage(error):
                raise
            raise StudyFailed(f"{self.sampler} cannot suggest values for trial {number}: {error!r}") from error

    def attach_again(self, trial_id: int, number: int) -> Trial:
        """A trial that was sampled before, for parameters that its objective asks for: drawn with a seed of theirs."""
        reseed(self._study.sampler, self.seed_of(number, 1))
        return attach(self._sampled, trial_id)

    @property
    def sampler(self) -> str:
        return str(self._study.sampler)

    def seed_of(self, number: int, *more: int) -> int:
        """A trial's own seed, from the study's and its number: the same in every attempt, another for each trial."""
        return int(np.random.SeedSequence([self._seed, number, *more]).generate_state(1)[0] % 2**31)


def attach(study: optuna.Study, trial_id: int) -> Trial:
    """The RUNNING trial, to be sampled from all that the study holds now."""
    # Samplers ask for the trials that Optuna read at the last `ask`, which nobody calls here.
    study._thread_local.cached_all_trials = None
    return Trial(study, trial_id)


def make_study_for_sampling(study: optuna.Study, *, pauses: bool) -> optuna.Study:
    """The study as its sampler sees it; `pauses`: whether trials pause to be promoted."""
    return for_sampler(study, pauses=pauses)


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
