"""How many trials in a row have failed: what stops a study whose objective does not work."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime

from optuna.trial import FrozenTrial, TrialState


def consecutive_failures(trials: Iterable[FrozenTrial], since: float) -> int:
    """Failures since the last success, in the order of finishing; only trials that ended after `since` count.

    `since` is in seconds since the epoch.
    """
    start = datetime.fromtimestamp(since)
    ended = [trial for trial in trials if trial.state.is_finished() and _ended(trial) >= start]
    last_success = max((_ended(trial) for trial in ended if trial.state != TrialState.FAIL), default=start)
    return sum(trial.state == TrialState.FAIL and _ended(trial) >= last_success for trial in ended)


def _ended(trial: FrozenTrial) -> datetime:
    return trial.datetime_complete or datetime.min
