"""What the trials that have ended say about those to come."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from optuna.trial import FrozenTrial, TrialState

from aimlhpo.records import ATTRIBUTE


class History:
    """Takes each trial once, however often the study is looked at.

    Only trials that ended after `since` (seconds since the epoch) count as failures in a row.

    Attributes:
        longest: seconds that the longest complete trial took; 0 where none is complete.
    """

    def __init__(self, since: float) -> None:
        self.longest = 0.0
        self._start = self._last_success = datetime.fromtimestamp(since)
        self._failures: list[datetime] = []
        self._seen: set[int] = set()

    def take(self, finished: Sequence[FrozenTrial]) -> None:
        """Look at all finished trials of the study; a trial that is finished never changes."""
        if len(finished) > len(self._seen):
            for trial in finished:
                if trial.number not in self._seen:
                    self._take(trial)

    @property
    def consecutive_failures(self) -> int:
        """Failures after the last success, in the order of finishing.

        Enough of them in a row stop a study whose objective does not work.
        """
        return len(self._failures)

    def _take(self, trial: FrozenTrial) -> None:
        self._seen.add(trial.number)
        if trial.state == TrialState.COMPLETE:
            seconds = trial.user_attrs.get(ATTRIBUTE, {}).get("seconds", 0.0)
            self.longest = max(self.longest, float(seconds))
        ended = trial.datetime_complete or datetime.min
        if trial.state != TrialState.FAIL:
            self._last_success = max(self._last_success, ended)
            self._failures = [failure for failure in self._failures if failure >= self._last_success]
        elif ended >= self._last_success:
            self._failures.append(ended)
