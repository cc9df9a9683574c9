"""How an unfinished trial is given back: with the history of its interruptions, or as if it had never been claimed."""

from __future__ import annotations

from collections.abc import Callable

from optuna.trial import TrialState

from aimlhpo import interruptions
from aimlhpo.backends import OpenTrial
from aimlhpo.backends.backend import CLAIM, RELEASED
from aimlhpo.backends.operations import SetState, SetSystemAttr, SetUserAttr
from aimlhpo.ledger.draft import Draft
from aimlhpo.ledger.turn import Release
from aimlhpo.records import ATTRIBUTE


class Releasing:
    """Gives trials back to be continued, and up after `most` interruptions in a row without progress.

    `progress` tells a trial's by its id and its number.
    """

    def __init__(self, progress: Callable[[int, int], list[float]], most: int) -> None:
        self._progress, self._most = progress, most

    def release(self, draft: Draft, release: Release) -> bool:
        """Give a trial back. False if the claim was lost."""
        trial = draft.find(release.claim.trial_id)
        if trial is None or not trial.held_with(release.claim.token):
            return False
        if release.cause is None:
            self._unclaim(draft, trial)
        else:
            self._interrupt(draft, trial, release.cause, release.seconds)
        return True

    def take_from_dead(self, draft: Draft, trial: OpenTrial) -> None:
        """Give a trial back for its agent."""
        if trial.begun:
            self._interrupt(draft, trial, "node failure", 0.0)
        else:
            self._unclaim(draft, trial)

    def _unclaim(self, draft: Draft, trial: OpenTrial) -> None:
        draft.write([SetSystemAttr(trial.trial_id, CLAIM, None), SetState(trial.trial_id, TrialState.WAITING)])
        draft.change(trial, state=TrialState.WAITING, claim=None)

    def _interrupt(self, draft: Draft, trial: OpenTrial, cause: str, seconds: float) -> None:
        gpus = float((trial.claim or {}).get("gpus", 0.0))
        progress = self._progress(trial.trial_id, trial.number)
        history = interruptions.after(trial.released, cause, seconds, progress, gpus)
        draft.write([SetSystemAttr(trial.trial_id, RELEASED, history)])
        self._unclaim(draft, trial)
        if interruptions.are_too_many(history, self._most):
            record = interruptions.record(history)
            draft.write([SetUserAttr(trial.trial_id, ATTRIBUTE, record), SetState(trial.trial_id, TrialState.FAIL)])
