"""From a claim to all that a worker needs: the trial's parameters are sampled, and put into the configuration."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from optuna.trial import Trial

from aimlhpo.backends import OwnedStorage
from aimlhpo.ledger import Claim
from aimlhpo.protocol import Assignment, Suggested, SuggestRequest
from aimlhpo.sampling.parameters import Sampling

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
    """Prepares trials for one agent; every method runs in the clerk's thread and is safe to repeat."""

    def __init__(self, config: Config, study: optuna.Study, storage: OwnedStorage) -> None:
        self._config, self._storage = config, storage
        self._sampling = Sampling(config, study)
        self._space, self._promotion = self._sampling.space, self._sampling.promotion
        self._reported = config.optuna.reported_metric
        self._trials: dict[int, Trial] = {}

    def prepare(self, claims: Sequence[Claim], term: int) -> list[Work]:
        """Sample the parameters of all these trials here, and write them at once. Raises StudyFailed."""
        with self._storage.batch():
            values = [self._sampling.sample(claim.trial_id, claim.number) for claim in claims]
        return [self.work(claim, sampled, term) for claim, sampled in zip(claims, values, strict=True)]

    def work(self, claim: Claim, values: dict[str, Any], term: int) -> Work:
        """A trial whose parameters are known."""
        return Work(claim, self._assignment(claim, values), term)

    def suggest(self, claim: Claim, request: SuggestRequest) -> Suggested:
        """Answer a suggest call for a parameter that the YAML does not declare."""
        try:
            return Suggested(getattr(self._trial(claim), request.method)(**request.arguments))
        except (ValueError, TypeError) as error:
            return Suggested(error=error)

    def _trial(self, claim: Claim) -> Trial:
        if claim.number not in self._trials:
            self._trials[claim.number] = self._sampling.attach_again(claim.trial_id, claim.number)
        return self._trials[claim.number]

    def forget(self, number: int) -> None:
        """The trial is over."""
        self._trials.pop(number, None)

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
            seed=self._sampling.seed_of(claim.number),
            checkpoint_dir=str(self._config.paths.checkpoint(claim.number)),
            user_attrs=frozen.user_attrs,
            intermediate_values=frozen.intermediate_values,
            reports=self._reported is not None,
            strict_pruning=self._config.optuna.pruning == "strict",
            pause=self._promotion.pause(frozen) if self._promotion is not None else None,
        )
