"""What every callback does: report every so many steps, ask for the pruner's decision, and act on it."""

from __future__ import annotations

from typing import Any, NoReturn

from aimlhpo.outcome import MissingMetric


def is_due(step: int, interval: int) -> bool:
    """True at every `interval`-th step; steps count from 0. Raises ValueError when interval < 1."""
    if interval < 1:
        raise ValueError(f"interval has to be 1 or more, got {interval}")
    return (step + 1) % interval == 0


def report_and_ask(trial: Any, value: Any, step: int) -> bool:
    """Report the value; True when the trial should be pruned."""
    trial.report(float(value), step)
    return bool(trial.should_prune())


def prune(step: int) -> NoReturn:
    """Raises optuna.TrialPruned."""
    from optuna import TrialPruned

    raise TrialPruned(f"pruned at step {step}")


def never_seen(monitor: str, seen: set[str]) -> MissingMetric:
    """The error for a monitored metric that no epoch logged: without it nothing would ever be pruned."""
    names = ", ".join(sorted(seen)) or "nothing"
    return MissingMetric(
        f"missing metric: {monitor}; logged: {names}",
        f"the pruning callback monitors {monitor!r}, which was never logged; logged were: {names}",
    )
