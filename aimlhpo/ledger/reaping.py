"""What dead agents have left behind: results on their way to the storage, and trials."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import cache

from optuna.trial import TrialState

from aimlhpo.backends import OpenTrial, Overview
from aimlhpo.leases import Registry
from aimlhpo.ledger.turn import Claim, Finish
from aimlhpo.outbox import Outbox, Result

IsDead = Callable[[str], bool]
"""Whether an agent is, by its name."""


def make_judge(registry: Registry, myself: str) -> IsDead:
    """Asks the registry once about each agent, and never about `myself`."""
    return cache(lambda agent: agent != myself and registry.is_dead(agent))


def left_results(outbox: Outbox, is_dead: IsDead) -> Iterator[Finish]:
    """The results of dead agents, to be delivered in their place."""
    return (_finish(result) for result in outbox.results() if is_dead(result.agent))


def left_trials(overview: Overview, is_dead: IsDead) -> list[OpenTrial]:
    """The trials that dead agents hold."""
    held = (trial for trial in overview.open if trial.state == TrialState.RUNNING and trial.claim)
    return [trial for trial in held if trial.claim and is_dead(trial.claim["agent"])]


def _finish(result: Result) -> Finish:
    claim = Claim(result.trial_id, result.number, result.token, attempt=1)
    return Finish(claim, TrialState[result.state], result.values, result.record, result.reports)
