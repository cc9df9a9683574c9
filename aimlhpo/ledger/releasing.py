"""How an unfinished trial is given back: with the history of its interruptions, or as if it had never been claimed.

A journal or Redis may keep the first records of a batch alone. So the history names the claim, which is counted once;
the state follows; and the claim goes last, since nobody would ever look after a trial that is RUNNING without one.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

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
        """Give a trial back, or do what is missing where that was cut off. False if the claim was lost."""
        trial = draft.find(release.claim.trial_id)
        if trial is None or trial.token != release.claim.token:
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
        draft.write([SetState(trial.trial_id, TrialState.WAITING), SetSystemAttr(trial.trial_id, CLAIM, None)])
        draft.change(trial, state=TrialState.WAITING, claim=None)

    def _interrupt(self, draft: Draft, trial: OpenTrial, cause: str, seconds: float) -> None:
        history = self._history(trial, cause, seconds)
        draft.write([SetSystemAttr(trial.trial_id, RELEASED, history)])
        if interruptions.are_too_many(history, self._most):
            self._give_up(draft, trial, history)
        else:
            self._unclaim(draft, trial)

    def _history(self, trial: OpenTrial, cause: str, seconds: float) -> dict[str, Any]:
        if trial.released and trial.interrupted_with(trial.token):
            return trial.released
        gpus = float((trial.claim or {}).get("gpus", 0.0))
        progress = self._progress(trial.trial_id, trial.number)
        return {**interruptions.after(trial.released, cause, seconds, progress, gpus), "token": trial.token}

    def _give_up(self, draft: Draft, trial: OpenTrial, history: dict[str, Any]) -> None:
        record = interruptions.record(history)
        draft.write([SetUserAttr(trial.trial_id, ATTRIBUTE, record), SetState(trial.trial_id, TrialState.FAIL)])
        draft.end(trial, TrialState.FAIL)
