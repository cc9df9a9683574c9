"""What dead agents have left behind: results on their way to the storage, and trials.
The ledger of one study, as one agent sees it.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from functools import cache
from typing import Any

import optuna
from optuna.trial import TrialState

from aimlhpo.config.optuna_section import MOST_FRUITLESS
from aimlhpo.ledger.claims import Claiming, Queue
from aimlhpo.ledger.completion import Finishing, Releasing
from aimlhpo.ledger.leases import Registry
from aimlhpo.ledger.outbox import Outbox, Result
from aimlhpo.ledger.requests import (
    Budget,
    Claim,
    ClaimRequest,
    Finish,
    LedgerAnswer,
    LedgerBatch,
    NoTrial,
    PendingState,
    Release,
    new_token,
)
from aimlhpo.paths import StudyPaths
from aimlhpo.search.asha import Promotion
from aimlhpo.search.stopping import StoppingCriteria, StopReason
from aimlhpo.storage.base import OpenTrial, Overview, Place
from aimlhpo.storage.locks import locked
from aimlhpo.storage.owned import OwnedStorage, own
from aimlhpo.storage.retry import is_outage
from aimlhpo.storage.trials import Counts

IsDead = Callable[[str], bool]
"""Whether an agent is, by its name."""


def make_judge(registry: Registry, myself: str) -> IsDead:
    """Asks the registry once about each agent, and never about `myself`."""
    return cache(lambda agent: agent != myself and registry.is_dead(agent))


def left_results(outbox: Outbox, is_dead: IsDead) -> Iterator[Finish]:
    """The results of dead agents, to be delivered in their place."""
    return (_finish(result) for result in outbox.results() if is_dead(result.agent))


def left_trials(overview: Overview, is_dead: IsDead) -> list[OpenTrial]:
    """The trials that dead agents hold."""
    held = (trial for trial in overview.open if trial.state == TrialState.RUNNING and trial.claim)
    return [trial for trial in held if trial.claim and is_dead(trial.claim["agent"])]


def _finish(result: Result) -> Finish:
    claim = Claim(result.trial_id, result.number, result.token, attempt=1)
    return Finish(claim, TrialState[result.state], result.values, result.record, result.reports)


class Ledger:
    """Claims, finishes and releases the trials of one study for one agent."""

    def __init__(
        self,
        study: optuna.Study,
        paths: StudyPaths,
        n_trials: int | None,
        agent: str,
        registry: Registry,
        max_retries: int = 0,
        max_interruptions: int = MOST_FRUITLESS,
        queue: Queue | None = None,
        stops: StoppingCriteria | None = None,
        promotion: Promotion | None = None,
    ) -> None:
        self._study, self._paths, self._agent, self._registry = study, paths, agent, registry
        storage = study._storage
        self._storage = storage if isinstance(storage, OwnedStorage) else own(storage)
        self._backend = self._storage.backend
        self._budget = Budget(study, n_trials)
        self._claiming = Claiming(study, self._storage, self._budget, agent, queue, stops, promotion)
        self._finishing = Finishing(study, self._storage, paths, max_retries)
        self._releasing = Releasing(self._finishing.progress, max_interruptions)
        self._stops, self._promotion = stops, promotion
        self._outbox = Outbox(paths.outbox)

    # --- many requests at once ---

    def settle(self, turn: LedgerBatch) -> LedgerAnswer:
        """Decide on all requests, and write what follows at once. Safe to repeat: tokens tell what was done before.

        Where a value is refused, nothing of the turn is written, and the error is raised.
        """
        if not turn.asks:
            self._backend.apply(turn.operations)
            return LedgerAnswer()
        with locked(self._paths.lock):
            if not (turn.finishes and turn.wishes and self._looks_at_results):
                return self._settle(turn)
            ended = self._settle(replace(turn, wishes=()))
            return LedgerAnswer.of([ended, self._settle(LedgerBatch(wishes=turn.wishes))])

    @property
    def _looks_at_results(self) -> bool:
        """Whether a claim depends on the results that are stored."""
        return self._stops is not None or self._promotion is not None or self._finishing.retries

    def _settle(self, turn: LedgerBatch) -> LedgerAnswer:
        with self._storage.gather() as operations:
            operations += turn.operations
            draft = PendingState(self._overview(), operations)
            settled = LedgerAnswer(
                begun={begun.claim.token: self._claiming.begin(draft, begun) for begun in turn.beginnings},
                finished={finish.claim.token: self._finishing.finish(draft, finish) for finish in turn.finishes},
                released={release.claim.token: self._releasing.release(draft, release) for release in turn.releases},
            )
            claims = {wish.token: self._claiming.claim(draft, wish) for wish in turn.wishes}
            places = self._backend.commit(self._study._study_id, operations, draft.new)
        lost = [begun.claim for begun in turn.beginnings if not settled.begun[begun.claim.token]]
        for over in (*lost, *(finish.claim for finish in turn.finishes), *(give.claim for give in turn.releases)):
            self._storage.let_go(over.trial_id)
        settled.claims = {token: self._held(claim, places.get(token)) for token, claim in claims.items()}
        return settled

    def _held(self, claim: Claim | NoTrial, place: Place | None) -> Claim | NoTrial:
        """The claim, on the trial that was made for it where `place` is given."""
        if isinstance(claim, NoTrial):
            return claim
        if place is not None:
            claim = Claim(place.trial_id, place.number, claim.token, claim.attempt)
        self._storage.let_go(claim.trial_id)
        self._storage.hold(claim.trial_id)
        return claim

    # --- one request ---

    def claim(self, slot: int, device: str, token: str | None = None, gpus: float = 0.0) -> Claim | NoTrial:
        """The next trial for a slot: an interrupted or enqueued one before a new one.

        A repeated call with the same token returns the claim that an earlier call made before it was cut short.
        """
        return self._claim_one(ClaimRequest(token or new_token(), slot, device, gpus, time.time()))

    def claim_ahead(self, token: str | None = None) -> Claim | NoTrial:
        """The next trial for whichever of this agent's slots is free first: it counts, but has not begun.

        Nothing.WAIT where what is left is not more than what other agents run: a slot that is free there takes that.
        """
        return self._claim_one(ClaimRequest(token or new_token()))

    def _claim_one(self, wish: ClaimRequest) -> Claim | NoTrial:
        return self.settle(LedgerBatch(wishes=[wish])).claims[wish.token]

    def finish(
        self,
        claim: Claim,
        state: TrialState,
        values: Sequence[float] | None,
        record: dict[str, Any],
        reports: Iterable[tuple[int, float]] = (),
    ) -> bool:
        """Write a trial's result, and those of its reports that are not stored yet; WAITING pauses it at a rung.

        False if the claim was lost meanwhile: then nothing is written.
        """
        finish = Finish(claim, state, values, record, list(reports))
        return self.settle(LedgerBatch(finishes=[finish])).finished[claim.token]

    def release(self, claim: Claim, cause: str, seconds: float = 0.0) -> bool:
        """Give an unfinished trial back, to be continued by whoever claims it next. False if the claim was lost."""
        return self._release_one(Release(claim, cause, seconds))

    def give_back(self, claim: Claim) -> bool:
        """Give a trial back that has not begun, as if it had never been claimed. False if the claim was lost."""
        return self._release_one(Release(claim, None))

    def _release_one(self, release: Release) -> bool:
        return self.settle(LedgerBatch(releases=[release])).released[release.claim.token]

    # --- who holds what ---

    def confirm(self, claims: Sequence[Claim]) -> list[Claim]:
        """Those of the claims that are still held."""
        with locked(self._paths.lock):
            return [claim for claim in claims if self._backend.open_trial(claim.trial_id).held_with(claim.token)]

    def reap(self) -> list[int]:
        """Deliver the results that dead agents left behind, then release their trials; returns those numbers."""
        with locked(self._paths.lock):
            is_dead = make_judge(self._registry, self._agent)
            for finish in left_results(self._outbox, is_dead):
                self._deliver(finish)
            lost = self._release_lost(is_dead)
            self._registry.sweep()
        return [trial.number for trial in lost]

    def _deliver(self, finish: Finish) -> None:
        try:
            self._settle(LedgerBatch(finishes=[finish]))
        except Exception as error:
            if is_outage(error):
                raise
            self._outbox.set_aside(finish.claim.token, error)  # or it would end each agent that comes
        else:
            self._outbox.remove(finish.claim.token)

    def _release_lost(self, is_dead: IsDead) -> list[OpenTrial]:
        with self._storage.gather() as operations:
            draft = PendingState(self._overview(), operations)
            lost = left_trials(draft.overview, is_dead)
            for trial in lost:
                self._releasing.take_from_dead(draft, trial)
            self._backend.apply(operations)
        return lost

    # --- the study ---

    def ended(self) -> StopReason | None:
        """Which stopping rule has ended the study, if one has."""
        if self._stops is None:
            return None
        with locked(self._paths.lock):
            return self._stops.ended(self._overview())

    def counts(self) -> Counts:
        return self._budget.counts(self._overview())

    def left(self, counts: Counts) -> int | None:
        """How many trials nobody has claimed yet; None without a budget."""
        return self._budget.left(counts)

    def is_alone(self) -> bool:
        """Whether no other agent is at work on the study."""
        return all(holder.agent == self._agent for holder in self._registry.living())

    def _overview(self) -> Overview:
        return self._backend.overview(self._study._study_id)
