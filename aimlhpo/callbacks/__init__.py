"""Reporting and pruning from inside a framework's training loop. Only user code imports these.

    torch       report_or_prune, for a plain training loop
    keras       KerasPruningCallback
    lightning   LightningPruningCallback

Each module imports its own framework and no other; the names can also be imported from here, which loads the module
when it is asked for one. Here is what they share: report every so many steps, ask for the pruner's decision, act on it.
"""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from typing import Any, NoReturn

from aimlhpo.objective.base import MissingMetric

_HOMES = {
    "KerasPruningCallback": "aimlhpo.callbacks.keras",
    "LightningPruningCallback": "aimlhpo.callbacks.lightning",
    "report_or_prune": "aimlhpo.callbacks.torch",
}
__all__ = ["KerasPruningCallback", "LightningPruningCallback", "report_or_prune"]


def __getattr__(name: str) -> object:
    if name in _HOMES:
        return getattr(import_module(_HOMES[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def is_due(step: int, interval: int) -> bool:
    """True at every `interval`-th step; steps count from 0. Raises ValueError when interval < 1."""
    if interval < 1:
        raise ValueError(f"interval has to be 1 or more, got {interval}")
    return (step + 1) % interval == 0


def prune(step: int) -> NoReturn:
    """Raises optuna.TrialPruned."""
    from optuna import TrialPruned

    raise TrialPruned(f"pruned at step {step}")


class Monitor:
    """The metric that a callback finds in a framework's logs, and reports at every `interval`-th epoch.

    Attributes:
        ends_after: the epoch after which the trial is to end; None while it goes on.

    Raises ValueError when interval < 1.
    """

    def __init__(self, trial: Any, metric: str, interval: int) -> None:
        is_due(0, interval)
        self._trial, self._metric, self._interval = trial, metric, interval
        self._seen: set[str] = set()
        self.ends_after: int | None = None

    def is_due(self, logged: Mapping[str, Any], epoch: int) -> bool:
        """Whether this epoch is to be reported, and logged the metric."""
        self._seen.update(logged)
        return self._metric in logged and is_due(epoch, self._interval)

    def report_and_ask(self, logged: Mapping[str, Any], epoch: int) -> bool:
        """Report the metric; True when the trial should be pruned."""
        self._trial.report(float(logged[self._metric]), epoch)
        return bool(self._trial.should_prune())

    def end_trial(self) -> None:
        """Raises optuna.TrialPruned where `ends_after` is set; to be called when that epoch's checkpoint is written."""
        if self.ends_after is not None:
            prune(self.ends_after)

    def end_training(self) -> None:
        """The same, and MissingMetric when no epoch logged the metric: nothing would ever be pruned then."""
        self.end_trial()
        if self._seen and self._metric not in self._seen:
            names = ", ".join(sorted(self._seen))
            raise MissingMetric(
                f"missing metric: {self._metric}; logged: {names}",
                f"the pruning callback monitors {self._metric!r}, which was never logged; logged were: {names}",
            )
