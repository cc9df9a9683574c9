"""Whether a finished trial keeps the study's constraints."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from aimlhpo.constraints import Constraint, values_of
from aimlhpo.outcome import OutcomeError
from aimlhpo.protocol import COMPLETE, FAIL, Outcome


def judge(outcome: Outcome, constraints: Sequence[Constraint], params: Mapping[str, Any]) -> Outcome:
    """The outcome with the value of each constraint; a complete trial that a constraint cannot be computed for fails.

    A metric goes before a parameter of the same name. Pruned trials have no metrics, and so no constraints.
    """
    if not constraints or outcome.state != COMPLETE:
        return outcome
    try:
        return replace(outcome, constraints=values_of(constraints, {**params, **outcome.metrics}))
    except OutcomeError as error:
        return replace(outcome, state=FAIL, values=None, cause=error.cause, error=str(error))
