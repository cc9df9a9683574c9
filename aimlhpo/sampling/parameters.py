"""The parameters of a trial: suggested by the study's sampler, with the trial's own seed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from optuna.trial import Trial

from aimlhpo.asha import Promotion
from aimlhpo.backends.views import for_sampler
from aimlhpo.errors import StudyFailed
from aimlhpo.patience import is_outage
from aimlhpo.space import SearchSpace
from aimlhpo.storage import STUDY_ATTR
from aimlhpo.strategies import reseed

if TYPE_CHECKING:
    import optuna

    from aimlhpo.config import Config


class Sampling:
    """Samples trials that the study's storage holds as this agent's; what is suggested is written to that storage."""

    def __init__(self, config: Config, study: optuna.Study) -> None:
        self._study = study
        self.space = SearchSpace.from_config(config)
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
