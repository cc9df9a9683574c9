"""What is kept with a trial when it ends."""

from __future__ import annotations

import hashlib
import json
from typing import Any

from aimlhpo.ledger import Claim
from aimlhpo.outbox import Result
from aimlhpo.protocol import COMPLETE, FAIL, PAUSED, PRUNED, Outcome, Report
from aimlhpo.records import CONSTRAINTS

STATES = {COMPLETE: "COMPLETE", PRUNED: "PRUNED", PAUSED: "WAITING", FAIL: "FAIL"}


def refused(record: dict[str, Any], error: Exception) -> dict[str, Any]:
    """What is kept with a trial whose result the storage does not take."""
    cause = f"exception: the storage refused the result: {type(error).__name__}"
    return {**record, "metrics": {}, "updates": {}, "cause": cause, "error": str(error)[:2000]}


def provenance_id(provenance: dict[str, Any]) -> str:
    """A short name for what trials run on; the study keeps the whole under it, once."""
    return hashlib.sha256(json.dumps(provenance, sort_keys=True).encode()).hexdigest()[:12]


def result(
    agent: str, claim: Claim, outcome: Outcome, where: dict[str, Any], reports: list[Report], seed: int
) -> Result:
    """The trial's end as it is stored; `where` says on what it ran."""
    record = {
        "metrics": outcome.metrics,
        "seconds": round(claim.seconds_before + outcome.seconds, 3),
        "gpu_seconds": round(claim.gpu_seconds_before + outcome.seconds * where["gpus"], 3),
        "cause": outcome.cause,
        "error": outcome.error,
        "updates": outcome.updates,
        "unread": outcome.unread,
        "seed": seed,
        "attempts": claim.attempt,
        **where,
    }
    if outcome.constraints:
        record[CONSTRAINTS] = outcome.constraints
    return Result(
        agent=agent,
        trial_id=claim.trial_id,
        number=claim.number,
        token=claim.token,
        state=STATES[outcome.state],
        values=outcome.values,
        record=record,
        reports=[(report.step, report.value) for report in reports],
    )
