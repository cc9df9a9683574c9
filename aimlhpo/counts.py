"""Trials of a study by state."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

from optuna.trial import FrozenTrial, TrialState

from aimlhpo.backends.backend import CLAIM, PAUSED, Overview, waits_at_rung
from aimlhpo.constraints import holds
from aimlhpo.taken import is_own


@dataclass(frozen=True)
class Counts:
    """Trials of the study by state; agents hold the `running` ones, and `paused` ones wait to be promoted."""

    complete: int = 0
    pruned: int = 0
    failed: int = 0
    running: int = 0
    waiting: int = 0
    paused: int = 0

    @property
    def finished(self) -> int:
        """What the budget counts."""
        return self.complete + self.pruned


def count(trials: Iterable[FrozenTrial]) -> Counts:
    """Count by state the trials of the study's own.

    A RUNNING trial that no agent claimed belongs to somebody else and is left out, as are those of other studies.
    """
    own = [trial for trial in trials if is_own(trial)]
    paused = sum(waits_at_rung(trial.state, trial.system_attrs.get(PAUSED)) for trial in own)
    states = Counter(trial.state for trial in own if trial.state != TrialState.RUNNING or trial.system_attrs.get(CLAIM))
    return Counts(
        complete=states[TrialState.COMPLETE],
        pruned=states[TrialState.PRUNED],
        failed=states[TrialState.FAIL],
        running=states[TrialState.RUNNING],
        waiting=states[TrialState.WAITING] - paused,
        paused=paused,
    )


def count_overview(overview: Overview, taken: tuple[int, int] = (0, 0)) -> Counts:
    """The same, from what the ledger sees; `taken` are the COMPLETE and PRUNED trials of other studies in it."""
    return Counts(
        complete=overview.complete - taken[0],
        pruned=overview.pruned - taken[1],
        failed=overview.failed,
        running=sum(trial.state == TrialState.RUNNING and bool(trial.claim) for trial in overview.open),
        waiting=sum(trial.state == TrialState.WAITING and not trial.is_paused for trial in overview.open),
        paused=len(overview.paused),
    )


def count_feasible(trials: Iterable[FrozenTrial]) -> int:
    """Complete trials that keep every constraint."""
    complete = (trial for trial in trials if trial.state == TrialState.COMPLETE and is_own(trial))
    return sum(holds(trial.constraints) for trial in complete)
