"""Trials of a study by state."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

from optuna.trial import FrozenTrial, TrialState

from aimlhpo.backends.backend import CLAIM, PAUSED, Overview, has_begun, waits_at_rung
from aimlhpo.constraints import holds
from aimlhpo.taken import is_own

FINISHED = (TrialState.COMPLETE, TrialState.PRUNED, TrialState.FAIL)


@dataclass(frozen=True)
class Counts:
    """Trials of the study by state.

    Agents hold the `running` ones, and the `ready` ones, which have not begun; `paused` ones wait to be promoted.
    """

    complete: int = 0
    pruned: int = 0
    failed: int = 0
    running: int = 0
    waiting: int = 0
    paused: int = 0
    ready: int = 0

    @property
    def finished(self) -> int:
        """What the budget counts."""
        return self.complete + self.pruned

    @property
    def claimed(self) -> int:
        """What the budget counts on."""
        return self.running + self.ready


def count(trials: Iterable[FrozenTrial]) -> Counts:
    """Count by state the trials of the study's own.

    A RUNNING trial that no agent claimed belongs to somebody else and is left out, as are those of other studies.
    """
    states: Counter[TrialState] = Counter()
    ready = paused = 0
    for trial in filter(is_own, trials):
        claim = trial.system_attrs.get(CLAIM) if trial.state == TrialState.RUNNING else None
        if claim and not has_begun(claim):
            ready += 1
        elif waits_at_rung(trial.state, trial.system_attrs.get(PAUSED)):
            paused += 1
        elif claim or trial.state != TrialState.RUNNING:
            states[trial.state] += 1
    return _counts(states, ready, paused)


def count_overview(overview: Overview, taken: tuple[int, int] = (0, 0)) -> Counts:
    """The same, from what the ledger sees; `taken` are the COMPLETE and PRUNED trials of other studies in it."""
    held = [trial for trial in overview.open if trial.state == TrialState.RUNNING and trial.claim]
    begun = sum(trial.begun for trial in held)
    return Counts(
        complete=overview.complete - taken[0],
        pruned=overview.pruned - taken[1],
        failed=overview.failed,
        running=begun,
        waiting=sum(trial.state == TrialState.WAITING and not trial.is_paused for trial in overview.open),
        paused=len(overview.paused),
        ready=len(held) - begun,
    )


def _counts(states: Counter[TrialState], ready: int, paused: int) -> Counts:
    return Counts(
        complete=states[TrialState.COMPLETE],
        pruned=states[TrialState.PRUNED],
        failed=states[TrialState.FAIL],
        running=states[TrialState.RUNNING],
        waiting=states[TrialState.WAITING],
        paused=paused,
        ready=ready,
    )


def count_feasible(trials: Iterable[FrozenTrial]) -> int:
    """Complete trials that keep every constraint."""
    complete = (trial for trial in trials if trial.state == TrialState.COMPLETE and is_own(trial))
    return sum(holds(trial.constraints) for trial in complete)
