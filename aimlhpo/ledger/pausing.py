"""What is written for a trial that pauses at a rung, and for those that are never promoted."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from optuna.trial import FrozenTrial, TrialState

from aimlhpo.backends.backend import PAUSED, RELEASED, OpenTrial
from aimlhpo.backends.operations import SetState
from aimlhpo.backends.views import last_report


def attributes(trial: FrozenTrial, token: str, record: dict[str, Any], progress: list[float]) -> dict[str, Any]:
    """The system attributes of a trial that has reached `record["rung"]`. A pause is no interruption."""
    before = trial.system_attrs.get(RELEASED) or {}
    counted = before.get("token") == token  # by a batch that was cut off
    history = {
        "token": token,
        "attempts": before.get("attempts", 0) + (not counted),
        "seconds": record["seconds"],
        "gpu_seconds": record.get("gpu_seconds", 0.0),
        "cause": "paused",
        "fruitless": 0,
        "progress": progress,
    }
    return {PAUSED: {"rung": record["rung"], "token": token}, RELEASED: history}


def promoted(trial: OpenTrial) -> dict[str, Any]:
    """What becomes of the attribute of a paused trial that goes on."""
    return {**(trial.paused or {}), "promoted": True}


def endings(trials: Iterable[FrozenTrial], directions: int) -> list[SetState]:
    """The ends of paused trials that nobody can promote any more: PRUNED, with their last report."""
    return [SetState(trial._trial_id, TrialState.PRUNED, last_report(trial, directions)) for trial in trials]
