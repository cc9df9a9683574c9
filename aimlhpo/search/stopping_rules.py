"""What a stopping rule is, and what it sees of the study.
The stopping rules. Each costs a few operations for each trial that ends, and none for a claim.
Optuna's terminator as a rule: it weighs what may still be gained against the noise of the objective.
"""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Container, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, ClassVar

from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState

from aimlhpo.errors import StudyFailed, show_duration, show_number
from aimlhpo.storage.base import OpenTrial
from aimlhpo.storage.trials import ATTRIBUTE


@dataclass(frozen=True)
class Moment:
    """The study besides its ended trials: those that run or wait, and the time in seconds since the epoch."""

    open: Sequence[OpenTrial] = ()
    now: float = field(default_factory=time.time)


class Rule(ABC):
    """A reason to end the study.

    Attributes:
        key: the key of the YAML that sets it.
        limit: what was set, as JSON: a note of an ended study counts for as long as this is the same.
    """

    key: ClassVar[str]
    limit: Any

    def hear(self, signed: Mapping[str, Any]) -> None:  # noqa: B027 -- most rules need nothing of it
        """Learn what the study says of itself: when it was begun and when it was last started, which may change."""

    @abstractmethod
    def take(self, trial: FrozenTrial) -> None:
        """Learn of a trial that has ended. Each is given once, in the order in which they ended."""

    @abstractmethod
    def __call__(self, moment: Moment) -> str | None:
        """Why the study should end, or None."""


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
        return f"more than {show_duration(self._seconds)} have passed since {since}"


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
            told.append(f"{name} {show_number(value)} {sign} {show_number(target)}" if reached else "")
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
        return f"{show_number(used)} of {show_number(self.limit)} GPU hours are used"


def _so_far(trial: OpenTrial, now: float) -> float:
    """GPU seconds of a trial that runs or waits: its earlier attempts, and this one until now."""
    claim = trial.claim if trial.state == TrialState.RUNNING else None
    running = max(0.0, now - (claim.get("since") or now)) * claim.get("gpus", 0.0) if claim else 0.0
    return trial.gpu_seconds + running


class PatienceRule(Rule):
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


class Terminator(Rule):
    """What Optuna's `should_terminate` says of the complete trials, asked in a thread: it may take seconds."""

    key = "terminator"

    def __init__(self, entry: Mapping[str, Any], direction: StudyDirection, seed: int | None) -> None:
        self.limit = dict(entry)
        self._direction, self._seed = direction, seed
        self._trials: list[FrozenTrial] = []
        self._judged = 0
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="terminator")
        self._judge: Any = None
        self._verdict: Future[bool] | None = None

    def take(self, trial: FrozenTrial) -> None:
        if trial.state == TrialState.COMPLETE:
            self._trials.append(trial)

    def __call__(self, moment: Moment) -> str | None:
        """Raises StudyFailed where the terminator cannot judge these trials at all."""
        verdict = self._verdict
        if verdict is not None and verdict.done():
            if self._read(verdict):
                return f"{self.limit['type']} sees no more to gain after {self._judged} complete trials"
            verdict = self._verdict = None
        if verdict is None and len(self._trials) > self._judged:
            self._judged = len(self._trials)
            view = Trials(tuple(self._trials), self._direction)
            self._verdict = self._thread.submit(self._should_terminate, view)
        return None

    def _should_terminate(self, view: Trials) -> bool:
        from aimlhpo.search.building import build_strategy

        if self._judge is None:
            self._judge = build_strategy("terminator", self.limit, self._seed)
        return bool(self._judge.should_terminate(view))

    def _read(self, verdict: Future[bool]) -> bool:
        try:
            return verdict.result()
        except Exception as error:
            raise StudyFailed(f"optuna: terminator: {self.limit['type']} cannot judge the trials: {error!r}") from error


class Trials:
    """The part of a study that a terminator reads."""

    def __init__(self, trials: Sequence[FrozenTrial], direction: StudyDirection) -> None:
        self.trials, self.direction = list(trials), direction

    def get_trials(self, deepcopy: bool = True, states: Container[TrialState] | None = None) -> list[FrozenTrial]:
        return [trial for trial in self.trials if states is None or trial.state in states]
