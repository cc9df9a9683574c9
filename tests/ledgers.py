"""A ledger that is asked for one thing at a time."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from typing import Any

from optuna.trial import TrialState

from aimlhpo.ledger.ledger import Ledger
from aimlhpo.ledger.requests import Claim, ClaimRequest, LedgerBatch, NoTrial, Release, Result
from aimlhpo.storage.base import Counts, new_token


class SingleRequestLedger(Ledger):
    """Each call is a batch of one request."""

    def counts(self) -> Counts:
        return self.look()[0]

    def claim(
        self, slot: int | None = None, device: str | None = None, token: str | None = None, gpus: float = 0.0
    ) -> Claim | NoTrial:
        """The next trial for a slot: an interrupted or enqueued one before a new one.

        Without a slot it is claimed ahead, for whichever of this agent's slots is free first: it counts, but has not
        begun. A repeated call with the same token returns the claim that an earlier call made before it was cut short.
        """
        since = None if slot is None else time.time()
        request = ClaimRequest(token or new_token(), slot, device, gpus, since)
        return self.process(LedgerBatch(claim_requests=[request])).claims[request.token]

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
        found = None if values is None else list(values)
        result = Result(
            self._agent, claim.trial_id, claim.number, claim.token, state.name, found, record, list(reports)
        )
        return self.process(LedgerBatch([result])).finished[claim.token]

    def release(self, claim: Claim, cause: str | None, seconds: float = 0.0) -> bool:
        """Give an unfinished trial back; without a cause, as if it had never been claimed. False if the claim was lost.

        `seconds` is what this attempt took.
        """
        return self.process(LedgerBatch(releases=[Release(claim, cause, seconds)])).released[claim.token]
