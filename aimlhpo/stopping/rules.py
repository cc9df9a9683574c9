"""The stopping rules. Each costs a few operations for each trial that ends, and none for a claim."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from optuna.trial import FrozenTrial, TrialState

from aimlhpo import readable
from aimlhpo.backends.backend import OpenTrial
from aimlhpo.records import ATTRIBUTE
from aimlhpo.stopping.rule import Moment, Rule

_HOUR = 3600.0


class Timeout(Rule):
    """So many seconds have passed since the study was begun, or (`scope` is submission) since it was last started."""

    key = "timeout"

    def __init__(self, seconds: float, scope: str) -> None:
        self._seconds, self._of_study = seconds, scope == "study"
        self.hear({})

    def hear(self, signed: Mapping[str, Any]) -> None:
        started = float(signed.get("started", 0.0))
        self._begin = float(signed.get("begun", started)) if self._of_study else started
        self.limit = [self._seconds, self._begin]

    def take(self, trial: FrozenTrial) -> None:
        """Time passes without trials, too."""

    def __call__(self, moment: Moment) -> str | None:
        if moment.now - self._begin <= self._seconds:
            return None
        since = "the study was begun" if self._of_study else "the study was last started"
        return f"more than {readable.duration(self._seconds)} have passed since {since}"


class TargetValue(Rule):
    """A complete trial, within the constraints, is as good as wanted in every metric that has a target."""

    key = "target_value"

    def __init__(self, targets: Mapping[str, float], metrics: Sequence[str], directions: Sequence[str]) -> None:
        self.limit = dict(targets)
        self._wanted = [
            (name, place, directions[place] == "maximize", targets[name])
            for place, name in enumerate(metrics)
            if name in targets
        ]
        self._reached: str | None = None

    def take(self, trial: FrozenTrial) -> None:
        if self._reached is None and is_result(trial) and all(map(bool, self._told(trial))):
            self._reached = f"{', '.join(self._told(trial))} with trial {trial.number}"

    def _told(self, trial: FrozenTrial) -> list[str]:
        """For each target the words for its being reached, empty where it is not."""
        told = []
        for name, place, maximize, target in self._wanted:
            value = trial.values[place]
            reached = value >= target if maximize else value <= target
            sign = ">=" if maximize else "<="
            told.append(f"{name} {readable.number(value)} {sign} {readable.number(target)}" if reached else "")
        return told

    def __call__(self, moment: Moment) -> str | None:
        return self._reached


class GpuHours(Rule):
    """The time that all attempts of all trials have spent, times their share of the GPUs."""

    key = "max_gpu_hours"

    def __init__(self, hours: float) -> None:
        self.limit = hours
        self._seconds = 0.0

    def take(self, trial: FrozenTrial) -> None:
        known = trial.user_attrs.get(ATTRIBUTE)
        self._seconds += float(known.get("gpu_seconds") or 0.0) if isinstance(known, Mapping) else 0.0

    def __call__(self, moment: Moment) -> str | None:
        used = (self._seconds + sum(_so_far(trial, moment.now) for trial in moment.open)) / _HOUR
        if used < self.limit:
            return None
        return f"{readable.number(used)} of {readable.number(self.limit)} GPU hours are used"


def _so_far(trial: OpenTrial, now: float) -> float:
    """GPU seconds of a trial that runs or waits: its earlier attempts, and this one until now."""
    claim = trial.claim if trial.state == TrialState.RUNNING else None
    running = max(0.0, now - (claim.get("since") or now)) * claim.get("gpus", 0.0) if claim else 0.0
    return trial.gpu_seconds + running


class Patience(Rule):
    """So many trials have finished since the last one that was better than all before it.

    It waits for the first complete trial. With several metrics a trial is better that no earlier one is at least as
    good as in all of them.
    """

    key = "patience"

    def __init__(self, trials: int, min_delta: float, directions: Sequence[str]) -> None:
        self.limit = [trials, min_delta]
        self._most, self._delta = trials, min_delta
        self._signs = [-1.0 if direction == "maximize" else 1.0 for direction in directions]
        self._front: list[list[float]] = []
        self._best = -1
        self._since = 0

    def take(self, trial: FrozenTrial) -> None:
        if trial.state == TrialState.FAIL:
            return
        self._since += 1
        if is_result(trial) and self._improves(losses := self._losses(trial.values)):
            self._front = [known for known in self._front if not _as_good(losses, known)] + [losses]
            self._best, self._since = trial.number, 0

    def _losses(self, values: Sequence[float]) -> list[float]:
        return [sign * value for sign, value in zip(self._signs, values, strict=True)]

    def _improves(self, losses: Sequence[float]) -> bool:
        return not any(_as_good(known, losses, self._delta) for known in self._front)

    def __call__(self, moment: Moment) -> str | None:
        if not self._front or self._since < self._most:
            return None
        return f"none of the {self._since} trials that finished after trial {self._best} is better"


def _as_good(one: Sequence[float], other: Sequence[float], delta: float = 0.0) -> bool:
    """Whether `one` is nowhere worse than `other` by `delta` or more (by more than nothing, without a delta)."""
    worse = (a - b for a, b in zip(one, other, strict=True))
    return all(gap < delta if delta else gap <= 0 for gap in worse)


def is_result(trial: FrozenTrial) -> bool:
    """Whether the trial is complete, and violates no constraint."""
    return trial.state == TrialState.COMPLETE and all(value <= 0 for value in trial.constraints.values())
