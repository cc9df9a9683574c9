"""What the trials that have ended say about those to come."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime

from optuna.trial import FrozenTrial, TrialState

from aimlhpo.records import ATTRIBUTE


def consecutive_failures(trials: Iterable[FrozenTrial], since: float) -> int:
    """Failures after the last success, in the order of finishing; only trials that ended after `since` count.

    `since` is in seconds since the epoch. Enough of them in a row stop a study whose objective does not work.
    """
    start = datetime.fromtimestamp(since)
    ended = [trial for trial in trials if trial.state.is_finished() and _ended(trial) >= start]
    last_success = max((_ended(trial) for trial in ended if trial.state != TrialState.FAIL), default=start)
    return sum(trial.state == TrialState.FAIL and _ended(trial) >= last_success for trial in ended)


def longest(trials: Iterable[FrozenTrial]) -> float:
    """Seconds that the longest complete trial took; 0 where none is complete."""
    complete = (trial for trial in trials if trial.state == TrialState.COMPLETE)
    return max((float(trial.user_attrs.get(ATTRIBUTE, {}).get("seconds", 0.0)) for trial in complete), default=0.0)


def _ended(trial: FrozenTrial) -> datetime:
    return trial.datetime_complete or datetime.min
