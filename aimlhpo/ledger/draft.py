"""What the ledger is about to write, and the study as it will be then."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import Any

from optuna.trial import FrozenTrial, TrialState

from aimlhpo.backends.backend import CLAIM, OpenTrial, Overview
from aimlhpo.backends.operations import Operation

_NOWHERE = -1  # where a trial is that is not made yet
_COUNTED = {TrialState.COMPLETE: "complete", TrialState.PRUNED: "pruned", TrialState.FAIL: "failed"}


class Draft:
    """Decisions of one turn: each sees what those before it have decided.

    Attributes:
        overview: the study with all that is decided so far.
        operations: what is to be written for it.
        new: the trials to be made.
    """

    def __init__(self, overview: Overview, operations: list[Operation]) -> None:
        self.overview, self.operations = overview, operations
        self.new: list[FrozenTrial] = []

    def find(self, trial_id: int) -> OpenTrial | None:
        return next((trial for trial in self.overview.open if trial.trial_id == trial_id), None)

    def held_with(self, token: str) -> OpenTrial | None:
        return next((trial for trial in self.overview.open if trial.held_with(token)), None)

    def write(self, operations: Iterable[Operation]) -> None:
        self.operations.extend(operations)

    def change(self, trial: OpenTrial, **changes: Any) -> None:
        """Have an open trial stay open, with something else about it."""
        now = [replace(other, **changes) if other is trial else other for other in self.overview.open]
        self.overview = replace(self.overview, open=now)

    def end(self, trial: OpenTrial, state: TrialState) -> None:
        name = _COUNTED[state]
        rest = [other for other in self.overview.open if other is not trial]
        self.overview = replace(self.overview, open=rest, **{name: getattr(self.overview, name) + 1})

    def add(self, found: Iterable[OpenTrial]) -> None:
        """Take note of trials that have been made meanwhile."""
        known = {trial.trial_id for trial in self.overview.open}
        added = [trial for trial in found if trial.trial_id not in known]
        self.overview = replace(self.overview, open=[*self.overview.open, *added])

    def make(self, trial: FrozenTrial) -> None:
        """Make a trial that somebody claims."""
        self.new.append(trial)
        made = OpenTrial(_NOWHERE, _NOWHERE, trial.state, trial.system_attrs.get(CLAIM))
        self.overview = replace(self.overview, open=[*self.overview.open, made])
