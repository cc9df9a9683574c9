"""Trials that another study has run: known by a mark, and left out of everything that counts this study's own."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from optuna.trial import FrozenTrial, TrialState

if TYPE_CHECKING:
    import optuna

TAKEN = "aimlhpo:taken"
"""System attribute of such a trial: where it was run, {"source": ..., "study": ..., "number": ...}."""

NOTES = "aimlhpo:warm_start"
"""User attribute of the study: what was taken over, by source; written before the first trial is."""


def is_own(trial: FrozenTrial) -> bool:
    """Whether the study itself has run the trial, or will."""
    return TAKEN not in trial.system_attrs


def origin(trial: FrozenTrial) -> str | None:
    """Where a trial was taken over from, in words."""
    mark = trial.system_attrs.get(TAKEN)
    return f"taken over from trial {mark['number']} of {mark['study']}" if mark else None


def notes(study: optuna.Study) -> dict[str, Any]:
    """What the study has taken over, by source."""
    return dict(study._storage.get_study_user_attrs(study._study_id).get(NOTES) or {})


def number_taken(study: optuna.Study) -> tuple[int, int]:
    """How many COMPLETE and PRUNED trials were taken over: read from the trials themselves, if there are any."""
    if not notes(study):
        return 0, 0
    states = [trial.state for trial in taken_trials(study.get_trials(deepcopy=False))]
    return states.count(TrialState.COMPLETE), states.count(TrialState.PRUNED)


def taken_trials(trials: Sequence[FrozenTrial]) -> list[FrozenTrial]:
    return [trial for trial in trials if not is_own(trial)]
