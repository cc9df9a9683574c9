"""From a claim to all that a worker needs: the trial's parameters are sampled, and put into the configuration."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from optuna.trial import Trial

from aimlhpo.asha import Promotion
from aimlhpo.backends import OwnedStorage
from aimlhpo.backends.views import for_sampler
from aimlhpo.errors import StudyFailed
from aimlhpo.patience import is_outage
from aimlhpo.protocol import Assignment, Suggested, SuggestRequest
from aimlhpo.sampling import attach
from aimlhpo.space import SearchSpace
from aimlhpo.storage import STUDY_ATTR
from aimlhpo.strategies import reseed
from aimlhpo.turn import Claim

if TYPE_CHECKING:
    import optuna

    from aimlhpo.config import Config


@dataclass
class Work:
    """A claimed trial with everything that a worker needs to run it; `term` is the lease's at the claim."""

    claim: Claim
    assignment: Assignment
    term: int


class Preparing:
    """Samples for one agent; every method runs in the clerk's thread and is safe to repeat."""

    def __init__(self, config: Config, study: optuna.Study, storage: OwnedStorage) -> None:
        self._config, self._study, self._storage = config, study, storage
        self._space = SearchSpace.from_config(config)
        self._seed = study.user_attrs[STUDY_ATTR]["seed"]
        self._reported = config.optuna.reported_metric
        self._promotion = Promotion.of(study, self._reported)
        self._sampled = for_sampler(study, pauses=self._promotion is not None)
        self._trials: dict[int, Trial] = {}

    def prepare(self, claims: Sequence[Claim], term: int) -> list[Work]:
        """Sample the parameters of all these trials, and write them at once. Raises StudyFailed."""
        with self._storage.batch():
            values = [self._sample(claim) for claim in claims]
        return [
            Work(claim, self._assignment(claim, sampled), term) for claim, sampled in zip(claims, values, strict=True)
        ]

    def _sample(self, claim: Claim) -> dict[str, Any]:
        try:
            trial = self._trials[claim.number] = attach(self._sampled, claim.trial_id)
            reseed(self._study.sampler, self.seed_of(claim.number))
            return self._space.suggest(trial)
        except Exception as error:
            if is_outage(error):
                raise
            sampler = type(self._study.sampler).__name__
            raise StudyFailed(f"{sampler} cannot suggest values for trial {claim.number}: {error!r}") from error

    def suggest(self, request: SuggestRequest) -> Suggested:
        """Answer a suggest call for a parameter that the YAML does not declare."""
        try:
            return Suggested(getattr(self._trials[request.number], request.method)(**request.arguments))
        except (ValueError, TypeError) as error:
            return Suggested(error=error)

    def forget(self, number: int) -> None:
        """The trial is over."""
        self._trials.pop(number, None)

    def seed_of(self, number: int) -> int:
        """A trial's own seed, from the study's and its number: the same in every attempt, another for each trial."""
        return int(np.random.SeedSequence([self._seed, number]).generate_state(1)[0] % 2**31)

    def _assignment(self, claim: Claim, values: dict[str, Any]) -> Assignment:
        frozen = self._storage.get_trial(claim.trial_id)
        parameters = self._space.parameters
        return Assignment(
            number=claim.number,
            attempt=claim.attempt,
            conf=self._space.assign(self._config.conf(), values),
            values=values,
            names={parameter.key: parameter.name for parameter in parameters},
            settings={parameter.name: dict(parameter.settings) for parameter in parameters},
            plain=[parameter.name for parameter in parameters if parameter.path is None],
            seed=self.seed_of(claim.number),
            checkpoint_dir=str(self._config.paths.checkpoint(claim.number)),
            user_attrs=frozen.user_attrs,
            intermediate_values=frozen.intermediate_values,
            reports=self._reported is not None,
            strict_pruning=self._config.optuna.pruning == "strict",
            pause=self._promotion.pause(frozen) if self._promotion is not None else None,
        )
